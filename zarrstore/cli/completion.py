"""The verb ``completion``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script of a shell: eval "$(zarrstore completion bash)"."""
    from zarrstore.cli.group import cli

    completion = get_completion_class(shell)
    assert completion is not None
    if shell == "bash":
        # click's source() runs the bash on the PATH to learn its version, and there may be none.
        script = completion(cli, {}, "zarrstore", "_ZARRSTORE_COMPLETE")
        click.echo(script.source_template % script.source_vars())
    else:
        click.echo(completion(cli, {}, "zarrstore", "_ZARRSTORE_COMPLETE").source())
