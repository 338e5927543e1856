"""The console on which tables and trees are drawn. Importing this loads rich."""

from __future__ import annotations

from rich.console import Console

__all__ = ["console_of_stdout"]


class _Console(Console):
    """A console that leaves a closed pipe to `zarrstore.cli.group`; rich would exit with 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def console_of_stdout() -> Console:
    """Return the console of stdout. Without a terminal its width is not limited, so that no cell is cut."""
    terminal = _Console(highlight=False, soft_wrap=True)
    if terminal.is_terminal:
        return terminal
    return _Console(highlight=False, soft_wrap=True, width=10_000, color_system=None)
