"""Servers of files on loopback that fsspec speaks to: WebDAV (wsgidav), FTP (pyftpdlib) and SFTP (asyncssh)."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

USER, PASSWORD = "tester", "only-for-tests"


@contextlib.contextmanager
def webdav_server(root: Path) -> Iterator[str]:
    """Serve `root` by WebDAV; the URL."""
    wsgi = pytest.importorskip("cheroot.wsgi", reason="needs cheroot: pip install zarrstore[test]")
    app = pytest.importorskip("wsgidav.wsgidav_app", reason="needs wsgidav: pip install zarrstore[test]")
    config = {
        "provider_mapping": {"/": str(root)},
        "simple_dc": {"user_mapping": {"*": True}},
        "verbose": 0,
        "logging": {"enable": False},
        "property_manager": True,
        "lock_storage": True,
    }
    server = wsgi.Server(("127.0.0.1", 0), app.WsgiDAVApp(config), numthreads=8)
    server.shutdown_timeout = 1
    server.prepare()
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.bind_addr[1]}"
    finally:
        server.stop()
        thread.join(10)


@contextlib.contextmanager
def ftp_server(root: Path) -> Iterator[int]:
    """Serve `root` by FTP; the port."""
    servers = pytest.importorskip("pyftpdlib.servers", reason="needs pyftpdlib: pip install zarrstore[test]")
    from pyftpdlib.authorizers import DummyAuthorizer
    from pyftpdlib.handlers import FTPHandler

    authorizer = DummyAuthorizer()
    authorizer.add_user(USER, PASSWORD, str(root), perm="elradfmwMT")
    handler = type("Handler", (FTPHandler,), {"authorizer": authorizer, "log": lambda *args, **options: None})
    server = servers.FTPServer(("127.0.0.1", 0), handler)
    stopping = threading.Event()

    def serve() -> None:
        while not stopping.is_set():
            server.ioloop.loop(timeout=0.05, blocking=False)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield int(server.address[1])
    finally:
        stopping.set()
        thread.join(10)
        server.close_all()


@contextlib.contextmanager
def sftp_server(root: Path) -> Iterator[int]:
    """Serve `root` by SFTP; the port."""
    asyncssh = pytest.importorskip("asyncssh", reason="needs asyncssh: pip install zarrstore[test]")

    class Server(asyncssh.SSHServer):  # type: ignore[misc]
        def begin_auth(self, username: str) -> bool:
            return True

        def password_auth_supported(self) -> bool:
            return True

        def validate_password(self, username: str, password: str) -> bool:
            return (username, password) == (USER, PASSWORD)

    class Rooted(asyncssh.SFTPServer):  # type: ignore[misc]
        def __init__(self, channel: Any) -> None:
            super().__init__(channel, chroot=str(root))

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> Any:
        keys = [asyncssh.generate_private_key("ssh-ed25519")]
        return await asyncssh.listen("127.0.0.1", 0, server_factory=Server, server_host_keys=keys, sftp_factory=Rooted)

    async def stop() -> None:
        server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    server = asyncio.run_coroutine_threadsafe(start(), loop).result(20)
    try:
        yield int(server.get_port())
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
