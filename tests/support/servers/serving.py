"""``zarrstore serve`` in this process over a store, or in one of its own over a path."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import uvicorn

from zarrstore.server import make_app
from zarrstore.server.protocol import ValueProtocol


@contextmanager
def serving(target: Any, *options: str) -> Iterator[str]:
    """Serve a store (in a thread), or a path by the command line; yield the URL."""
    if isinstance(target, str):
        yield from _process(target, options)
        return
    config = uvicorn.Config(
        make_app(target), port=0, log_level="error", lifespan="off", http=ValueProtocol, proxy_headers=False
    )
    server = uvicorn.Server(config)
    sock = config.bind_socket()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)


def _process(target: str, options: tuple[str, ...]) -> Iterator[str]:
    command = [sys.executable, "-m", "zarrstore", "serve", target, "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            found = re.search(r"http://127\.0\.0\.1:\d+", line)
            assert found is not None, line
            serving.pid = process.pid  # type: ignore[attr-defined]
            yield found[0]
        finally:
            process.terminate()


def ask(app, path, method="GET", query="", raw=None, run=asyncio.run, **headers):
    """Send one request to an application; return the status, the headers and the body of its answer.

    `run` runs a coroutine to its end: that of an `asyncio.Runner` spares thousands of requests a new event loop each.
    """
    sent = []
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": quote(path).encode() if raw is None else raw,
        "query_string": query.encode(),
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
    }

    async def send(message):
        sent.append(message)

    run(app(scope, None, send))
    answered = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], answered, sent[1]["body"]
