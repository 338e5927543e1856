"""HTTP as uvicorn speaks it, with two short ways: small values in one step, large files sent by the system."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from functools import partial
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from zarrstore.server.app import ZERO_COPY, Application
from zarrstore.server.replies import FilePart

__all__ = ["ValueProtocol"]

_HAS_SENDFILE = hasattr(os, "sendfile")
_STATUS = b"HTTP/1.1 200 OK\r\n"


class ValueProtocol(HttpToolsProtocol):
    """A connection; give the class to ``uvicorn.Config(http=...)``.

    Notes
    -----
    What `Application.immediate` answers goes out in the step of the event loop in which the request came, without a
    task and without ASGI's messages. All else goes the way of uvicorn, and ASGI's *zero copy send* is offered there.
    """

    _is_answered = False

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._is_answered = False
        # What a request needs beside these, `super` makes once it is known that it goes the long way.
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def on_headers_complete(self) -> None:
        """Answer at once, or hand the request on."""
        found = self._immediate()
        if found is None:
            self._hand_on(self.app)
            return
        block, body = found
        more = [b"%b: %b\r\n" % header for header in self.server_state.default_headers]
        head = b"".join((_STATUS, *more, block))
        if isinstance(body, bytes):
            self._is_answered = True
            self.transport.write(head + body)
        else:
            self._send_part(head, body)

    def _hand_on(self, app: Any) -> None:
        """Have an application of ASGI answer, in a task."""
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)
        if self._takes_files():
            self.scope["extensions"] = {ZERO_COPY: {}}
        before, own = self.cycle, self.app
        self.app = app
        super().on_headers_complete()
        self.app = own
        if self.cycle is not before:
            self.cycle.send = partial(_send, self.cycle)  # type: ignore[method-assign]

    def on_body(self, body: bytes) -> None:
        """Take a part of the request's body."""
        if not self._is_answered:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request."""
        if self._is_answered:
            self.on_response_complete()
        else:
            super().on_message_complete()

    def _immediate(self) -> tuple[bytes, bytes | FilePart] | None:
        is_idle = (self.cycle is None or self.cycle.response_complete) and not self.pipeline
        if not is_idle or self.flow.write_paused or not isinstance(self.app, Application):
            return None
        method = self.parser.get_method()
        if method not in (b"GET", b"HEAD") or not self.parser.should_keep_alive():
            return None
        takes_files = self._takes_files() and not self.transport.get_write_buffer_size()
        return self.app.immediate(method, self.url, self.headers, takes_files)

    def _takes_files(self) -> bool:
        return _HAS_SENDFILE and self.scheme == "http"

    def _send_part(self, head: bytes, part: FilePart) -> None:
        """Send a part of a file as far as the system takes it at once, and the rest in a task."""
        sent = self._send_now(head, part)
        if sent == part.nbytes:
            part.file.close()
            self._is_answered = True
            return
        rest = FilePart(part.file, part.start + sent, part.nbytes - sent)
        self._hand_on(partial(_send_rest, rest))
        self.cycle.response_started = True
        self.cycle.chunked_encoding = False
        self.cycle.expected_content_length = rest.nbytes

    def _send_now(self, head: bytes, part: FilePart) -> int:
        sock = self.transport.get_extra_info("socket").fileno()
        count = 0
        # An error is met again by the transport, or by who sends the rest.
        with suppress(OSError):
            count = os.write(sock, head)
        if count < len(head):
            self.transport.write(head[count:])
            return 0
        with suppress(OSError):
            return os.sendfile(sock, part.file.fileno(), part.start, part.nbytes)
        return 0


async def _send_rest(part: FilePart, scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
    file, offset, count = part
    with file:
        await send({"type": ZERO_COPY, "file": file, "offset": offset, "count": count, "more_body": False})


async def _send(cycle: RequestResponseCycle, message: MutableMapping[str, Any]) -> None:
    send = partial(RequestResponseCycle.send, cycle)
    if message["type"] != ZERO_COPY:
        await send(message)  # type: ignore[arg-type]
        return
    await _drain(cycle)
    if not cycle.disconnected:
        is_whole = await _send_file(cycle, message["file"], message["offset"], message["count"])
        if not is_whole:  # another program cut the file: the reader sees that the body ends too early
            cycle.transport.abort()
            cycle.disconnected = True
            return
        cycle.expected_content_length -= message["count"]
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _drain(cycle: RequestResponseCycle) -> None:
    """Wait until the transport has sent all it was given."""
    cycle.transport.set_write_buffer_limits(high=0)
    try:
        while cycle.transport.get_write_buffer_size() and not cycle.disconnected:
            await asyncio.sleep(0)
            await cycle.flow.drain()
    finally:
        cycle.transport.set_write_buffer_limits()


async def _send_file(cycle: RequestResponseCycle, file: io.FileIO, start: int, count: int) -> bool:
    """Send a part of a file from the system's memory; False if the file is shorter than it was."""
    loop = asyncio.get_running_loop()
    # Of its own, since an event loop watches each descriptor for one purpose only, and its number stays until here.
    sock = os.dup(cycle.transport.get_extra_info("socket").fileno())
    stop = start + count
    try:
        while start < stop and not cycle.disconnected:
            try:
                sent = os.sendfile(sock, file.fileno(), start, stop - start)
            except BlockingIOError:
                await _until_writable(loop, sock)
                continue
            except OSError:  # the reader has left, which the transport finds out as well
                cycle.disconnected = True
                return True
            if not sent:
                return False
            start += sent
        return True
    finally:
        os.close(sock)


async def _until_writable(loop: asyncio.AbstractEventLoop, sock: int) -> None:
    writable = loop.create_future()

    def wake() -> None:
        if not writable.done():
            writable.set_result(None)

    loop.add_writer(sock, wake)
    try:
        await writable
    finally:
        loop.remove_writer(sock)
