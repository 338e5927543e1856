"""Ctrl-C at a chosen place of this package's code."""

from __future__ import annotations

import dis
import functools
import gc
import os
import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

__all__ = ["interrupted", "places"]

_PACKAGE = os.path.dirname(os.path.dirname(__file__))
#: After these instructions, and after no others, CPython looks whether a signal has come.
_CHECKED = frozenset({"CALL", "CALL_KW", "CALL_FUNCTION_EX", "RESUME", "JUMP_BACKWARD"})


@functools.cache
def _checked(code: CodeType) -> dict[int, int]:
    """Return, by the place of each instruction after which CPython looks, the handler of what is raised there."""
    return {one.offset: _handler(code, one.offset) for one in dis.get_instructions(code) if one.opname in _CHECKED}


@functools.cache
def _handler(code: CodeType, offset: int) -> int:
    """Return where an exception at an instruction goes on, -1 if it leaves the function."""
    entries = dis.Bytecode(code).exception_entries  # type: ignore[attr-defined]
    return next((entry.target for entry in entries if entry.start <= offset < entry.end), -1)


class _Interrupter:
    """A trace function that raises KeyboardInterrupt at the n-th place where a signal may come through."""

    def __init__(self, at: int, package: str) -> None:
        self.left = at
        self.package = package + os.sep
        self.done = False
        self.last: dict[FrameType, int] = {}

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Any:
        if not frame.f_code.co_filename.startswith(self.package):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        self.last[frame] = -1
        return self.step

    def step(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "exception":
            self.last[frame] = -1  # a call that raised is not followed by a look
        if self.done or event != "opcode":
            return self.step
        code, before, at = frame.f_code, self.last.get(frame, -1), frame.f_lasti
        self.last[frame] = at
        # CPython raises at the instruction that it looks after, and this at the one that comes next: only where both
        # have one handler is that the same.
        if before in _checked(code) and _checked(code)[before] == _handler(code, at):
            self.left -= 1
            if self.left < 0:
                self.done = True
                raise KeyboardInterrupt
        return self.step


def interrupted(act: Callable[[], object], at: int, package: str = _PACKAGE) -> bool:
    """Do something, and raise KeyboardInterrupt in it where Ctrl-C could come for the n-th time.

    Parameters
    ----------
    act : callable
        What is done, in this thread.
    at : int
        Which place of those in code of `package` where CPython looks for signals.
    package : str
        Folder of the code that is interrupted; by default this package.

    Returns
    -------
    bool
        Whether it was interrupted. If not, `act` had fewer places, and is done.

    Examples
    --------
    >>> from zarrstore import DictStore
    >>> store = DictStore()
    >>> interrupted(lambda: store.update({"a": b"1"}), 0), dict(store)
    (True, {})
    >>> interrupted(lambda: store.update({"a": b"1"}), 1 << 30), dict(store)
    (False, {'a': b'1'})
    """
    interrupter = _Interrupter(at, package)
    try:
        _trace(act, interrupter)
    except KeyboardInterrupt:
        if not interrupter.done:
            raise
    # Also true where Python dropped it, as in the callback of a weak reference.
    return interrupter.done


def places(act: Callable[[], object], package: str = _PACKAGE) -> int:
    """Do something, and return in how many places of it Ctrl-C could come.

    Parameters
    ----------
    act : callable
        What is done, in this thread.
    package : str
        Folder of the code whose places count; by default this package.

    Returns
    -------
    int
        The first `at` for which `interrupted` interrupts nothing, if `act` does the same each time.

    Examples
    --------
    >>> from zarrstore import DictStore
    >>> count = places(lambda: DictStore().update({"a": b"1"}))
    >>> interrupted(lambda: DictStore().update({"a": b"1"}), count - 1)
    True
    >>> interrupted(lambda: DictStore().update({"a": b"1"}), count)
    False
    """
    most = sys.maxsize
    interrupter = _Interrupter(most, package)
    _trace(act, interrupter)
    return most - interrupter.left


def _trace(act: Callable[[], object], interrupter: _Interrupter) -> None:
    before, collects = sys.gettrace(), gc.isenabled()
    # Finalizers of what is not of `act` would run in it, have places of their own, and swallow the interrupt.
    gc.disable()
    # Python 3.12 shows single instructions only if some frame asked for them before the tracer is set.
    sys._getframe().f_trace_opcodes = True
    sys.settrace(interrupter)
    try:
        act()
    finally:
        sys.settrace(before)
        if collects:
            gc.enable()
        # Frames know their tracer: in a circle they, and what their variables hold, would wait for the collector.
        interrupter.last.clear()
