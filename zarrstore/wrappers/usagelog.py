"""One line per call."""

from __future__ import annotations

import json as _json
import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable
from io import FileIO
from typing import IO, Any

from zarrstore.targets import Target
from zarrstore.threads import free_in_children
from zarrstore.wrappers._observed import Call, Observed

__all__ = ["UsageLogStore"]

_READS = frozenset({"get", "get_item", "get_range", "get_suffix"})
_WRITES = frozenset({"set", "set_many"})
_LISTS = {"keys": "keys", "listdir": "names"}
#: How the arguments of a call are named in JSON.
_NAMES = {
    "keys": ("path",),
    "get_range": ("key", "start", "stop"),
    "get_suffix": ("key", "n"),
    "get_many": ("count",),
    "listdir": ("path",),
    "getsize": ("path",),
    "rmdir": ("path",),
    "rename": ("source", "destination"),
}


class UsageLogStore(Observed):
    """Write one line for every call, with its sizes and milliseconds.

    Parameters
    ----------
    inner : Mapping
        The store observed, or any mapping.
    log : path-like, file, logging.Logger or callable
        Where lines go: appended to the file at a path; written to an open text file; logged at level INFO; or handed
        to ``log(line)``.
    json : bool, default False
        Write each line as a JSON object.
    prefix : str or callable, default ""
        What a line begins with, or ``prefix()`` that returns it (the time, say); in JSON the member ``"prefix"``.

    Notes
    -----
    A line is written in one piece after its call ended, also if the call failed. A batch has a line when it is asked
    for and one for each value it hands out. An error of the log never fails a call: it is warned of once. Pickles with
    a path, a logger, a callable that pickles, or ``sys.stderr`` and ``sys.stdout``. Source: zarrs' usage log adapter.

    Examples
    --------
    >>> lines = []
    >>> store = UsageLogStore({"a": b"12345"}, lines.append, prefix="> ")
    >>> store["a"], store.get("b")
    (b'12345', None)
    >>> [line.rpartition(", ")[0] for line in lines]  # without the milliseconds
    ["> get('a') -> 5 bytes", "> get('b') -> absent"]
    """

    def __init__(
        self,
        inner: Target,
        log: str | os.PathLike[str] | IO[str] | logging.Logger | Callable[[str], object],
        json: bool = False,
        prefix: str | Callable[[], str] = "",
    ) -> None:
        super().__init__(inner)
        self.log = os.fspath(log) if isinstance(log, str | os.PathLike) else log
        self.json = json
        self.prefix = prefix
        self._open()

    def _open(self) -> None:
        self._lock = free_in_children(threading.Lock())
        self._complained = False
        self._write: Callable[[str], object]
        self._file: FileIO | None = None
        log = self.log
        if isinstance(log, str):
            # Appended to, and each line written at once: several processes may share the file. Without a buffer, whose
            # lock a forked child would find taken for ever if another thread was writing at the fork.
            self._file = file = open(log, "ab", buffering=0)
            self._write = lambda line: _write_all(file, (line + os.linesep).encode())
            return
        if isinstance(log, logging.Logger):
            logger = log
            self._write = lambda line: logger.info("%s", line)
        elif hasattr(log, "write"):
            stream = log
            self._write = lambda line: stream.write(line + "\n")
        elif callable(log):
            self._write = log
        else:
            raise TypeError(
                f"cannot log to {type(log).__name__}: a path, a text file, a logger or a callable is expected"
            )

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__}
        for name in ("_lock", "_write", "_file", "_complained"):
            del state[name]
        for name in ("stderr", "stdout"):
            if self.log is getattr(sys, name):
                state["log"] = _Standard(name)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if isinstance(self.log, _Standard):
            self.log = getattr(sys, self.log)
        self._open()

    def _note(self, call: Call) -> None:
        try:
            line = self._as_json(call) if self.json else self._as_text(call)
            with self._lock:
                self._write(line)
        except Exception as exc:
            if not self._complained:
                self._complained = True
                warnings.warn(f"the usage log of {self.inner!r} is incomplete: {exc!r}", RuntimeWarning, stacklevel=3)

    def _lead(self) -> str:
        return self.prefix() if callable(self.prefix) else self.prefix

    def _as_text(self, call: Call) -> str:
        return f"{self._lead()}{call.method}({_arguments(call)}) -> {_result(call)}, {call.seconds * 1e3:.3f} ms"

    def _as_json(self, call: Call) -> str:
        lead = self._lead()
        members: dict[str, Any] = {"prefix": lead} if lead else {}
        members["method"] = call.method
        members.update(zip(_NAMES.get(call.method, ("key",)), call.args, strict=False))
        members["outcome"] = call.outcome
        if call.method in _READS:
            members["bytes"] = call.read
        elif call.method in _WRITES:
            members["bytes"] = call.written
        if call.method in _LISTS or call.method in ("set_many", "delete_many"):
            members["count"] = call.keys
        members["ms"] = round(call.seconds * 1e3, 3)
        return _json.dumps(members)

    def _close(self) -> None:
        super()._close()
        # A second close finds the file closed already, which is allowed.
        if self._file is not None:
            self._file.close()


def _write_all(file: FileIO, line: bytes) -> None:
    rest = memoryview(line)
    while rest:  # a signal, or a disk that is nearly full, may end a write early
        rest = rest[file.write(rest) :]


class _Standard(str):
    """The name of a standard stream, in a pickle."""


def _arguments(call: Call) -> str:
    if call.method == "get_range":
        key, start, stop = call.args
        return f"{key!r}, {start}..{'' if stop is None else stop}"
    if call.method == "get_many":
        return f"{call.keys} keys"
    if call.method == "set_many":
        return f"{call.keys} keys, {call.written} bytes"
    if call.method == "delete_many":
        return f"{call.keys} keys"
    if call.method == "set":
        return f"{call.args[0]!r}, {call.written} bytes"
    return ", ".join(map(repr, call.args))


def _result(call: Call) -> str:
    if call.outcome != "ok":
        return call.outcome
    if call.method in _READS:
        return f"{call.read} bytes"
    if call.method in _LISTS:
        return f"{call.keys} {_LISTS[call.method]}"
    return "ok"
