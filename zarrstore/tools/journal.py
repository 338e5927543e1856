"""A journal of finished work, so that an interrupted job goes on where it stopped."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from zarrstore.errors import DamagedStoreError

__all__ = ["Journal"]


class Journal:
    """Keys that are done, in a file of msgpack records; what was recorded survives a kill.

    Parameters
    ----------
    path : path-like
        The file. Created if it is missing; read, and continued, if it is there.
    job : dict
        What the work is: a journal of other work is refused.

    Raises
    ------
    DamagedStoreError
        The file is no journal, or one of other work.

    Notes
    -----
    The first record is the job, each other one a list of keys. A record torn by a crash is cut off at the next
    opening. One process writes at a time.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "journal"
    >>> with Journal(path, {"from": "a"}) as journal:
    ...     journal.record(["x", "y"])
    >>> with Journal(path, {"from": "a"}) as journal:
    ...     sorted(journal.done)
    ['x', 'y']
    """

    def __init__(self, path: str | os.PathLike[str], job: dict[str, Any]) -> None:
        import msgpack

        self.path = Path(path)
        self.done: set[str] = set()
        self._pack = msgpack.packb
        header = {"zarrstore journal": 1, **job}
        # No O_APPEND: a torn record at the end is to be written over.
        self._file = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
        try:
            whole = self._read(msgpack, header)
        except BaseException:
            self._file.close()
            raise
        self._file.seek(whole)
        self._file.truncate()
        #: Whether earlier work is continued.
        self.resumed = whole > 0
        if not whole:
            self._write(header)

    def _read(self, msgpack: Any, header: dict[str, Any]) -> int:
        """Take in what is whole; return where it ends."""
        unpacker = msgpack.Unpacker(self._file, max_buffer_size=0)
        whole = 0
        try:
            for n, record in enumerate(unpacker):
                if n == 0 and record != header:
                    raise DamagedStoreError(
                        self.path, "is no journal of this copy", "give another path, or delete it to begin anew"
                    )
                if n:
                    self.done.update(record)
                whole = unpacker.tell()
        except (msgpack.exceptions.UnpackException, ValueError, TypeError) as exc:
            if not whole:
                raise DamagedStoreError(
                    self.path, "is no journal", "give another path, or delete it to begin anew"
                ) from exc
        return whole

    def _write(self, record: Any) -> None:
        self._file.write(self._pack(record))
        self._file.flush()
        os.fsync(self._file.fileno())

    def record(self, keys: Iterable[str]) -> None:
        """Add keys that are done. Durable when it returns."""
        done = list(keys)
        if done:
            self._write(done)
            self.done.update(done)

    def close(self) -> None:
        """Close the file, which stays."""
        self._file.close()

    def remove(self) -> None:
        """Close and delete the file: the work is done."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
