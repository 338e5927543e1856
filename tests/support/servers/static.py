"""A folder served by Python's http.server (which ignores Range), and by a real nginx."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import random
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from tests.support import peers


class _Quiet(http.server.SimpleHTTPRequestHandler):
    disable_nagle_algorithm = True  # else headers wait 40 ms for the client to acknowledge the status line
    requests: list[tuple[str, str]]

    def log_message(self, *args: object) -> None:
        """Be silent."""

    def log_request(self, code: object = "-", size: object = "-") -> None:
        self.requests.append((self.command, self.path))


class _Server(http.server.ThreadingHTTPServer):
    # Of more connections at once than wait for their turn, each is tried again after a second, and then after two.
    request_queue_size = 256


@contextlib.contextmanager
def python_server(root: Path) -> Iterator[str]:
    """Serve `root` with Python's own http.server; the URL, without a slash at its end."""
    handler = type("Handler", (_Quiet,), {"requests": []})
    with _Server(("127.0.0.1", 0), lambda *args: handler(*args, directory=str(root))) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join(10)


_NGINX = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
worker_rlimit_nofile 4096;
events {{ worker_connections 1024; }}
http {{
    types {{ }}
    default_type application/octet-stream;
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        root {root};
        {directives}
    }}
}}
"""


class Nginx:
    """A running nginx: `url` without a slash at its end, `log()` with one line per answered request."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self._log = folder / "access.log"

    def log(self) -> list[str]:
        """Return the access log, a line per request that was answered, in nginx's combined format."""
        # A request is logged after its answer was sent, and its client may look before. One process serves them in
        # turn: once another request is answered, all that were answered before it have been logged.
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=60)
        with contextlib.closing(connection), contextlib.suppress(http.client.HTTPException, ConnectionError):
            connection.request("GET", f"/{_LAST}")
            connection.getresponse().read()
        return [line for line in self._log.read_text().splitlines() if _LAST not in line]


_LAST = "the-last-line-of-the-log"


@contextlib.contextmanager
def nginx(root: Path, directives: str = "") -> Iterator[Nginx]:
    """Serve `root` with nginx.

    `directives` stand within its server block: ``location /a { return 403; }``, ``location /b { return 500; }``,
    ``location /c { return 444; }`` (closes the connection without a word), ``max_ranges 0;`` (no ranges).
    """
    peers.require("nginx")
    binary = peers._which("nginx")
    assert binary is not None
    with tempfile.TemporaryDirectory(prefix="zarrstore-nginx-") as name:
        folder = Path(name)
        port = free_port()
        settings = folder / "nginx.conf"
        settings.write_text(_NGINX.format(folder=folder, port=port, root=root, directives=directives))
        command = [binary, "-p", name, "-c", str(settings), "-e", str(folder / "error.log")]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            _wait_for_nginx(folder, process)
            yield Nginx(f"http://127.0.0.1:{port}", folder)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


def _wait_for_nginx(folder: Path, process: subprocess.Popen[bytes]) -> None:
    """Return once it listens, which it does before it writes its number down; fail with its log if it ends before."""
    log = folder / "error.log"
    for _ in range(10_000):
        if (folder / "nginx.pid").exists():
            return
        assert process.poll() is None, f"nginx ended: {log.read_text()[-2000:] if log.exists() else ''}"
        time.sleep(0.005)
    raise AssertionError(f"nginx does not start: {log.read_text()[-2000:] if log.exists() else ''}")


@contextlib.contextmanager
def refusing_port() -> Iterator[int]:
    """Yield a port of loopback that refuses connections: it is taken, and nobody listens on it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield int(taken.getsockname()[1])


def free_port() -> int:
    """Return a port of loopback that nobody listens on, for a server that takes a number only."""
    # None of those that the system hands out: a client of another test may have been given it before the server binds.
    for _ in range(100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", random.SystemRandom().randrange(20_000, 32_768)))
            return int(probe.getsockname()[1])
    raise AssertionError("no port below 32768 is free")
