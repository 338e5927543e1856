"""A proxy on loopback that counts requests by method, and slows, refuses or cuts them on demand.

The `Host` header goes on as it came, so that signed requests (S3) stay valid.
"""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

#: Headers that belong to one hop.
_HOP = {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}


@dataclass
class Fault:
    """What happens to requests that `when(method, path)` chooses, `times` times (None: always)."""

    when: Callable[[str, str], bool]
    status: int | None = None  # answer with it, and do not ask the server
    cut_after: int | None = None  # bytes of the true body that still come, then the connection closes
    delay: float = 0.0  # seconds before the request goes on
    times: int | None = None
    headers: dict[str, str] = field(default_factory=dict)


class Proxy:
    """Pass requests on to `target` (``http://host:port``) from a port of its own.

    `requests` lists ``(method, path)`` in the order of arrival, `counts` adds them up by method. Use it as a
    context manager, or `start` and `stop` it.
    """

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._lock = threading.Lock()
        self.requests: list[tuple[str, str]] = []
        self.faults: list[Fault] = []
        self.busiest = 0
        self._busy = 0
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def counts(self) -> Counter[str]:
        """Requests so far, by method."""
        with self._lock:
            return Counter(method for method, _ in self.requests)

    def reset(self) -> None:
        """Forget the requests so far; faults stay."""
        with self._lock:
            self.requests.clear()
            self.busiest = 0

    def fail(self, status: int, when: str = "", *, times: int | None = None, **headers: str) -> None:
        """Answer requests whose path holds `when` with `status`."""
        self.faults.append(Fault(lambda method, path: when in path, status=status, times=times, headers=headers))

    def cut(self, after: int, when: str = "", *, times: int | None = None) -> None:
        """Close the connection after that many bytes of the body of an answer."""
        self.faults.append(Fault(lambda method, path: when in path, cut_after=after, times=times))

    def slow(self, seconds: float, when: str = "") -> None:
        """Let requests wait before they go on."""
        self.faults.append(Fault(lambda method, path: when in path, delay=seconds))

    def heal(self) -> None:
        """Break nothing any more."""
        self.faults.clear()

    def become_idle(self, seconds: float = 30) -> None:
        """Wait for the end of requests that their clients gave up on."""
        until = time.monotonic() + seconds
        while self._busy:
            assert time.monotonic() < until, f"{self._busy} requests do not end"
            time.sleep(0.005)

    def start(self) -> Proxy:
        """Begin to listen."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def __enter__(self) -> Proxy:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _arrived(self, method: str, path: str) -> list[Fault]:
        with self._lock:
            self.requests.append((method, path))
            self._busy += 1
            self.busiest = max(self.busiest, self._busy)
            chosen = [fault for fault in self.faults if fault.times != 0 and fault.when(method, path)]
            for fault in chosen:
                if fault.times is not None:
                    fault.times -= 1
            return chosen

    def _left(self) -> None:
        with self._lock:
            self._busy -= 1


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256
    proxy: Proxy

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that went away is an ordinary event here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else a body waits 40 ms for the client to acknowledge the headers
    server: _Server
    upstream: http.client.HTTPConnection | None = None

    def log_message(self, *args: object) -> None:
        """Be silent."""

    def do(self) -> None:
        proxy = self.server.proxy
        body = self._body()
        faults = proxy._arrived(self.command, self.path)
        try:
            time.sleep(sum(fault.delay for fault in faults))
            refused = next((fault for fault in faults if fault.status is not None), None)
            if refused is not None and refused.status is not None:
                status, headers, content = refused.status, refused.headers, b""
            else:
                status, headers, content = self._ask(proxy._target, body)
        finally:
            # Before the answer: a client that has it may ask again at once, and that is not two at a time.
            proxy._left()
        cuts = [fault.cut_after for fault in faults if fault.cut_after is not None]
        self._answer(status, headers, content, min(cuts) if cuts else None)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_OPTIONS = do

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            parts = []
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _ask(self, target: tuple[str, int], body: bytes) -> tuple[int, dict[str, str], bytes]:
        for attempt in (0, 1):
            fresh = self.upstream is None
            if self.upstream is None:
                self.upstream = http.client.HTTPConnection(*target, timeout=60)
                self.upstream.connect()
                self.upstream.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                self.upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    if name.lower() not in _HOP | {"content-length", "expect"}:
                        self.upstream.putheader(name, value)
                if body or self.command in ("PUT", "POST"):
                    self.upstream.putheader("Content-Length", str(len(body)))
                self.upstream.endheaders(body or None)
                answer = self.upstream.getresponse()
                content = answer.read()
                return answer.status, dict(answer.getheaders()), content
            except (http.client.HTTPException, OSError):
                # The server may have closed a connection that lay idle; a fresh one that fails is a failure.
                self.upstream.close()
                self.upstream = None
                if fresh or attempt:
                    raise
        raise AssertionError

    def _answer(self, status: int, headers: dict[str, str], content: bytes, cut_after: int | None = None) -> None:
        self.send_response_only(status)
        length = None
        for name, value in headers.items():
            if name.lower() == "content-length":
                length = value
            elif name.lower() not in _HOP:
                self.send_header(name, value)
        bodiless = self.command == "HEAD" or status in (204, 304)
        if not bodiless:
            length = str(len(content))
        if length is not None and status != 204:
            self.send_header("Content-Length", length)
        self.end_headers()
        if cut_after is not None:
            self.wfile.write(content[:cut_after])
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif not bodiless:
            self.wfile.write(content)

    def finish(self) -> None:
        if self.upstream is not None:
            self.upstream.close()
        super().finish()
