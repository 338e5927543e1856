"""The command ``zarrstore``: its verbs, each imported when it is called, and the exit codes of errors."""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import click

import zarrstore
from zarrstore.cli.examples import EXAMPLES, SUMMARIES

__all__ = ["VERBS", "cli", "run"]

#: Every verb, in the order of the help.
VERBS = tuple(SUMMARIES)
#: Names that verbs had.
_ALIASES = {"repack": "compact"}

#: What an interrupted verb has left, and how to go on.
_LEFT = {
    "put": "the value is the old one or the new one; run it again",
    "attrs": "the attributes are the old ones or the new ones; run it again",
    "copy": "what was copied is whole, and documents of arrays that are not were not written; go on with the same "
    "command and the same --resume JOURNAL, or without a journal with --if-exists skip",
    "sync": "what was copied is whole, and nothing was deleted before all was copied; run it again to go on",
    "pack": "no archive was made; run it again",
    "unpack": "what was unpacked is whole, and documents of arrays that are not were not written; go on with "
    "--if-exists skip",
    "migrate": "the nodes that were migrated are whole, the others are as they were; run it again to go on",
    "consolidate": "the consolidated metadata is the old one or the new one; run it again",
    "repair": "every document is the old one or the new one, and every chunk is found; run it again",
    "refs": "the reference file is the old one or the new one; run it again",
    "rm": "some of the keys are deleted; run it again to delete the rest",
    "mv": "some of the keys may stand at both places; compare them with zarrstore diff",
    "clean": "some of the keys are deleted; run it again to delete the rest",
    "compact": "the file is the old one or the new one; run it again",
    "recover": "the archive is the old one or the new one; run it again",
    "cache": "the cache is whole; run it again",
}


class _Ended(BaseException):
    """The verb was ended from outside. Not an Exception, since click takes KeyboardInterrupt for its own Abort."""

    def __init__(self, code: int) -> None:
        self.code = code


class _Terminated(BaseException):
    """SIGTERM came."""


class _Verbs(click.Group):
    """Imports a verb when it is called, so that ``zarrstore ls`` does not pay for ``zarrstore copy``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # Not inherited: click's would import every verb for the first line of its help.
        with formatter.section("Commands"):
            formatter.write_dl(list(SUMMARIES.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        # Likewise, at each press of a key.
        from click.shell_completion import CompletionItem

        verbs = [CompletionItem(verb, help=text) for verb, text in SUMMARIES.items() if verb.startswith(incomplete)]
        return verbs + click.Command.shell_complete(self, ctx, incomplete)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        cmd_name = _ALIASES.get(cmd_name, cmd_name)
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"zarrstore.cli.{cmd_name}")
        if not gc.isenabled():  # `main` has stopped the collector for the imports
            gc.freeze()
            gc.set_threshold(10_000)
            gc.enable()
        command: click.Command = module.command
        if cmd_name in EXAMPLES and command.epilog is None:
            command.epilog = "\n".join(["\b", "Examples:", *(f"  {line}" for line in EXAMPLES[cmd_name])])
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if not ctx.resilient_parsing and args and args[0] not in (*VERBS, *_ALIASES) and not args[0].startswith("-"):
            from zarrstore.tools.nearby import near_misses

            near = near_misses(args[0], list(VERBS))
            hint = f"did you mean {' or '.join(near)}?" if near else "zarrstore --help names the verbs"
            raise click.UsageError(f"there is no verb {args[0]!r}: {hint}", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise _Ended(0) from None
        except KeyboardInterrupt:
            raise _Ended(130) from None
        except _Terminated:
            raise _Ended(143) from None


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(zarrstore.__version__)
def cli(debug: bool) -> None:
    """List, copy, check, migrate and repair Zarr stores of any kind.

    TARGET is a path, a zip, LMDB, SQLite or DBM file, or a URL (s3://…, http://…, memory://…).

    Exit codes: 0 fine, 1 something was found, 2 misuse, 3 it could not be done, 4 not all could be looked at, 130 and
    143 interrupted.
    """


def run(args: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    given = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in given
    # Wherever it stands, it is the group's.
    given = (["--debug"] if debug else []) + [arg for arg in given if arg != "--debug"]
    verb = next((_ALIASES.get(arg, arg) for arg in given if arg in (*VERBS, *_ALIASES)), "")
    with _sigterm_raises():
        code = _code(lambda: cli.main(given, prog_name="zarrstore", standalone_mode=False), verb, debug, given)
        # What is left in the buffer is written now: at exit, Python would make of a closed pipe an error of its own.
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            _give_up_stdout()
        except OSError as exc:
            _give_up_stdout()
            if code != 3:  # else this was said
                _say(f"zarrstore: stdout: {exc.strerror}")
            return 3
        return code


def _code(main: Callable[[], Any], verb: str, debug: bool, given: Sequence[str] = ()) -> int:
    try:
        code = main()
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as exc:
        return int(exc.exit_code)
    except click.Abort:
        _say("zarrstore: not confirmed, nothing was changed")
        return 2
    except click.ClickException as exc:
        exc.show()
        return 2
    except _Ended as exc:
        if exc.code == 0:
            _give_up_stdout()
        else:
            left = _LEFT.get(verb, "nothing was changed")
            _say(f"zarrstore: {'interrupted' if exc.code == 130 else 'terminated'}: {left}")
        return exc.code
    except Exception as exc:
        if debug:
            import traceback

            traceback.print_exc()
        if "--json" in given:
            import json

            from zarrstore.cli.common import SCHEMA_VERSION

            failure = {
                "schema_version": SCHEMA_VERSION,
                "error": {"type": type(exc).__name__, "message": _sentence(exc)},
            }
            _say(json.dumps(failure))
        else:
            _say(f"zarrstore: {_sentence(exc)}")
        return 3


def _say(line: str) -> None:
    """Print a line to stderr. If nobody can be reached there, the exit code says it alone."""
    with suppress(OSError):
        click.echo(line, err=True)


def _give_up_stdout() -> None:
    """Let what is still to be written go nowhere: whoever reads stdout has closed it."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Let SIGTERM end a verb as Ctrl-C does: stores are closed, locks and temporary files go."""

    def terminate(signum: int, frame: object) -> None:
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# Sentences ------------------------------------------------------------------------------------------------------------


def _sentence(exc: Exception) -> str:
    from zarrstore.cli.common import printable
    from zarrstore.cli.words import in_words

    if type(exc) is KeyError:
        return printable(f"nothing is at {exc.args[0]!r}" if exc.args else "nothing is there")
    if isinstance(exc, zarrstore.errors.ZarrStoreError):
        text = str(exc)
    elif isinstance(exc, OSError) and exc.strerror:
        text = f"{exc.filename}: {exc.strerror}" if exc.filename is not None else exc.strerror
    elif isinstance(exc, OSError | ValueError) or (type(exc) is ImportError and exc.name is None):
        text = str(exc)  # an ImportError that names no module is a sentence of this package
    else:
        text = f"this failed in a way that was not foreseen: {exc or type(exc).__name__} (--debug shows where)"
    return printable(in_words(text))
