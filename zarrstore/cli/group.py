"""The command ``zarrstore``: its verbs, each imported when it is called, and the exit codes of errors."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Sequence

import click

import zarrstore

__all__ = ["VERBS", "cli", "run"]

#: Every verb, in the order of the help: what shows, what moves, what checks, what destroys, what mends.
VERBS = (
    "ls",
    "tree",
    "info",
    "cat",
    "du",
    "copy",
    "pack",
    "unpack",
    "migrate",
    "consolidate",
    "verify",
    "diff",
    "mv",
    "rm",
    "clean",
    "repack",
    "compact",
    "recover",
    "cache",
    "completion",
)


class _Verbs(click.Group):
    """Imports a verb when it is called, so that ``zarrstore ls`` does not pay for ``zarrstore copy``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"zarrstore.cli.{cmd_name}")
        command: click.Command = module.command
        return command


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(zarrstore.__version__)
def cli(debug: bool) -> None:
    """List, copy, check, migrate and repair Zarr stores of any kind.

    TARGET is a path, a zip, LMDB, SQLite or DBM file, or a URL (s3://…, http://…, memory://…).
    """


def run(args: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    given = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in given
    # Wherever it stands, it is the group's.
    given = (["--debug"] if debug else []) + [arg for arg in given if arg != "--debug"]
    try:
        code = cli.main(given, prog_name="zarrstore", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as exc:
        return int(exc.exit_code)
    except click.Abort:
        click.echo("zarrstore: given up, nothing more was changed", err=True)
        return 1
    except click.ClickException as exc:
        exc.show()
        return 2
    except BrokenPipeError:
        # `zarrstore ls | head`: whoever reads has had enough. Nothing is left to be flushed to it at exit.
        sys.stdout = None
        return 0
    except KeyboardInterrupt:
        click.echo("zarrstore: interrupted", err=True)
        return 3
    except Exception as exc:
        if debug:
            traceback.print_exc()
        click.echo(f"zarrstore: {_sentence(exc)}", err=True)
        return 3


def _sentence(exc: Exception) -> str:
    if type(exc) is KeyError:
        return f"nothing is at {exc.args[0]!r}" if exc.args else "nothing is there"
    if isinstance(exc, zarrstore.errors.ZarrStoreError | OSError | ValueError):
        return str(exc)
    return f"{type(exc).__name__}: {exc} (--debug shows where)"
