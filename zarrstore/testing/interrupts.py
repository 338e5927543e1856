"""Ctrl-C at a chosen place of this package's code."""

from __future__ import annotations

import dis
import functools
import os
import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

__all__ = ["interrupted"]

_PACKAGE = os.path.dirname(os.path.dirname(__file__))
#: After these instructions, and after no others, CPython looks whether a signal has come.
_CHECKED = frozenset({"CALL", "CALL_KW", "CALL_FUNCTION_EX", "RESUME", "JUMP_BACKWARD"})


@functools.cache
def _instructions(code: CodeType) -> dict[int, str]:
    return {one.offset: one.opname for one in dis.get_instructions(code)}


class _Interrupter:
    """A trace function that raises KeyboardInterrupt at the n-th place where a signal may come through."""

    def __init__(self, at: int, package: str) -> None:
        self.left = at
        self.package = package + os.sep
        self.done = False
        self.last: dict[FrameType, str | None] = {}

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Any:
        if not frame.f_code.co_filename.startswith(self.package):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        self.last[frame] = "RESUME"
        return self.step

    def step(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "exception":
            self.last[frame] = None  # a call that raised is not followed by a look
        if self.done or event != "opcode":
            return self.step
        before, self.last[frame] = self.last.get(frame), _instructions(frame.f_code).get(frame.f_lasti)
        if before in _CHECKED:
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
    before = sys.gettrace()
    sys.settrace(_Interrupter(at, package))
    try:
        act()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False
