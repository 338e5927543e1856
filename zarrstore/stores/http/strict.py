"""Connections that notice an answer that breaks off, and one that does not come to its end.

Python's own client takes the end of the connection for the end of the headers, and a line that breaks off for a whole
one: a cut answer then reads as an empty value. A server that sends a byte now and then never exceeds a time-out
between two pieces. Both are noticed where the bytes come in.
"""

from __future__ import annotations

import http.client
import io
import re
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from zarrstore.stores.http.slowstart import LOST, SlowStart

__all__ = ["pool_manager"]

#: Bytes per second. An answer that is slower for as long as the time-out is given up.
_LOWEST_RATE = 64
#: Bytes that are asked for at once, so the memory that an answer can take by announcing a length alone.
_MOST_AT_ONCE = 16 << 20
#: The size of a chunk; Python's own client takes signs, underscores and "0x" too.
_CHUNK_SIZE = re.compile(rb"([0-9a-fA-F]{1,16})[ \t]*(?:;[^\r\n]*)?\r?\n")
_LONGEST_LINE = 1 << 16
#: Interim answers (``103 Early Hints``) before the one that counts.
_MAX_INTERIM = 16


def pool_manager(urllib3: Any, connections: int, timeout: float) -> Any:
    """Return a urllib3 pool manager whose connections are strict, and which repeats and redirects nothing.

    Parameters
    ----------
    urllib3 : module
        Imported by the store, as it is optional.
    connections : int
        Connections kept open to one server.
    timeout : float, seconds
        To connect, between two pieces of an answer, and for how long an answer may be slower than 64 bytes per second.
    """

    class Response(_StrictResponse):
        seconds = timeout

    starts: defaultdict[tuple[str, int | None], SlowStart] = defaultdict(lambda: SlowStart(connections))

    def strict(pool: Any) -> Any:
        members = {"response_class": Response, "starts": starts}
        connection = type("Connection", (_SlowStarted, pool.ConnectionCls), members)
        return type(pool.__name__, (pool,), {"ConnectionCls": connection})

    limits = urllib3.util.Timeout(connect=timeout, read=timeout)
    manager = urllib3.PoolManager(maxsize=connections, retries=False, timeout=limits, block=False)
    pools = manager.pool_classes_by_scheme
    manager.pool_classes_by_scheme = {scheme: strict(pool) for scheme, pool in pools.items()}
    return manager


class _SlowStarted:
    """A connection that is opened when the server is expected to have room for it. Mixed into urllib3's."""

    starts: Mapping[tuple[str, int | None], SlowStart]
    _start: SlowStart | None = None

    def connect(self: Any) -> None:
        start = self._start = self.starts[self.host, self.port]
        start.enter(self)
        since = time.monotonic()
        super().connect()  # type: ignore[misc]
        if time.monotonic() - since > LOST:
            start.slow()

    def getresponse(self: Any) -> Any:
        # Taken first: http.client closes the connection here if the answer says that it is the last.
        start, self._start = self._start, None
        try:
            response = super().getresponse()  # type: ignore[misc]
        except BaseException:
            _leave(start, self, None)
            raise
        _leave(start, self, self.sock is not None)
        return response

    def close(self: Any) -> None:
        start, self._start = self._start, None
        _leave(start, self, None)
        super().close()  # type: ignore[misc]


def _leave(start: SlowStart | None, connection: object, kept_open: bool | None) -> None:
    if start is not None:
        start.leave(connection, kept_open=kept_open)


class _StrictResponse(http.client.HTTPResponse):
    seconds: float = 30.0

    def begin(self) -> None:
        raw = self.fp.detach()
        self.fp = _WholeLines(_Paced(raw, self.seconds))
        super().begin()
        self.fp.in_headers = False

    def _read_status(self) -> tuple[str, int, str]:
        for _ in range(_MAX_INTERIM):
            status: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
            if not 101 < status[1] < 200:
                return status
            http.client.parse_headers(self.fp)
        raise http.client.HTTPException(f"more than {_MAX_INTERIM} interim answers")

    def _read_next_chunk_size(self) -> int:
        found = _CHUNK_SIZE.fullmatch(self.fp.readline(_LONGEST_LINE))
        if found is None:
            raise http.client.IncompleteRead(b"")
        return int(found[1], 16)


class _Paced(io.RawIOBase):
    """The bytes of a connection; TimeoutError if they come too slowly for too long."""

    def __init__(self, raw: Any, seconds: float) -> None:
        self._raw = raw
        self._seconds = seconds
        self._since = time.monotonic()
        self._count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        count: int | None = self._raw.readinto(buffer)
        self._count += count or 0
        passed = time.monotonic() - self._since
        if passed > self._seconds:
            if self._count < _LOWEST_RATE * passed:
                raise TimeoutError(f"{self._count:,} bytes in {passed:.0f} seconds")
            self._since += passed
            self._count = 0
        return count

    def fileno(self) -> int:
        return int(self._raw.fileno())

    def close(self) -> None:
        self._raw.close()
        super().close()


class _WholeLines(io.BufferedReader):
    """A reader whose lines end: one that breaks off, or the end within the headers, is an error."""

    in_headers = True

    def __init__(self, raw: Any) -> None:
        super().__init__(raw)
        self._begun = False

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        limited = size is not None and 0 <= size <= len(line)
        # The very first line may be missing: the server closed a connection that was idle, and http.client says so.
        if not line.endswith(b"\n") and not limited and (line or (self.in_headers and self._begun)):
            raise http.client.IncompleteRead(line)
        self._begun = True
        return line

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size <= _MOST_AT_ONCE:
            return super().read(size)
        pieces = io.BytesIO()  # gives its own buffer away, without a copy
        while size > 0 and (piece := super().read(min(size, _MOST_AT_ONCE))):
            pieces.write(piece)
            size -= len(piece)
        return pieces.getvalue()
