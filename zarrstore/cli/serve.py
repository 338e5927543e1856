"""The verb ``serve``."""

from __future__ import annotations

import multiprocessing
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from zarrstore import keys as k
from zarrstore.base import Store
from zarrstore.cli.common import echo_err, not_empty, opened, storage_options
from zarrstore.optional import require
from zarrstore.wrappers.v2view import V2View
from zarrstore.wrappers.v3view import V3View

if TYPE_CHECKING:
    from zarrstore.server.app import Application

#: Of uvicorn, in each process. There is no proxy in front, and nothing to do at start and end.
_SETTINGS = {
    "log_level": "warning",
    "access_log": False,
    "server_header": False,
    "proxy_headers": False,
    "lifespan": "off",
    "ws": "none",
    "interface": "asgi3",
}
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@click.command()
@click.argument("targets", nargs=-1, required=True, metavar="TARGET...")
@click.option("--host", default="127.0.0.1", show_default=True, callback=not_empty, help="Address to listen at.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@click.option("--as", "version", type=click.Choice(["v2", "v3"]), help="Show the data under the keys of this version.")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes that answer: as many as cores.",
)
@click.option("--token", envvar="ZARRSTORE_TOKEN", help="Refuse who does not send it: Authorization: Bearer TOKEN.")
@click.option("--consolidate/--no-consolidate", default=True, show_default=True, help="Make consolidated metadata.")
@storage_options
def command(
    targets: tuple[str, ...],
    host: str,
    port: int,
    version: str | None,
    workers: int,
    token: str | None,
    consolidate: bool,
    storage_option: tuple[str, ...],
) -> None:
    """Let browsers and programs read TARGETs by HTTP: one at /, several each below its name. Nothing can be written."""
    uvicorn = require("uvicorn", extra="serve", feature="zarrstore serve")
    if host not in _LOOPBACK and not token:
        echo_err(f"note: anybody who reaches {host} can read this; --token asks for a word")
    served = _Served(targets, version, token, consolidate, storage_option)
    with ExitStack() as stack:
        # Opened here in any case: what cannot be opened is an error now, and not of each worker.
        app = served.opened(stack)
        config = uvicorn.Config(app, host=host, port=port, http=_protocol(), **_SETTINGS)
        server = uvicorn.Server(config)
        sock = config.bind_socket()
        sock.listen(2048)  # who reads the line below may connect at once
        place = f"[{host}]" if ":" in host else host
        stack.enter_context(_more_workers(workers - 1, served, sock))
        echo_err(f"serving {', '.join(targets)} at http://{place}:{sock.getsockname()[1]}/ (Ctrl-C ends it)")
        server.run(sockets=[sock])


@contextmanager
def _more_workers(n: int, served: _Served, sock: socket.socket) -> Iterator[None]:
    """Let other processes answer as well, at the same socket."""
    # Spawned, since stores are open here already, and not every library behind them lives through a fork.
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_work, args=(served, sock), daemon=True) for _ in range(n)]
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join(10)


def _work(served: _Served, sock: socket.socket) -> None:
    uvicorn = require("uvicorn", extra="serve", feature="zarrstore serve")
    server = uvicorn.Server(uvicorn.Config(served, factory=True, http=_protocol(), **_SETTINGS))

    def end_with_parent() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            server.should_exit = True

    threading.Thread(target=end_with_parent, daemon=True).start()
    with suppress(KeyboardInterrupt):
        server.run(sockets=[sock])


def _protocol() -> Any:
    """Return the class of uvicorn's connections: ours where its parser is installed."""
    try:
        from zarrstore.server.protocol import ValueProtocol
    except ImportError:
        return "auto"
    return ValueProtocol


class _Served(NamedTuple):
    """What makes the application, here or in a worker, to which it is sent."""

    targets: tuple[str, ...]
    version: str | None
    token: str | None
    consolidate: bool
    storage_option: tuple[str, ...]

    def opened(self, stack: ExitStack) -> Application:
        """Return the application; its stores are closed with the stack."""
        from zarrstore.server import make_app

        stores = {
            name: _as(self.version, stack.enter_context(opened(target, "r", self.storage_option)))
            for name, target in _named(self.targets)
        }
        return make_app(stores, token=self.token, consolidate=self.consolidate)

    def __call__(self) -> Application:
        """Return the application of a worker; its stores are closed when the process ends."""
        return self.opened(ExitStack())


def _as(version: str | None, store: Store) -> Store:
    views = {"v2": V2View, "v3": V3View}
    return store if version is None else views[version](store)


def _named(targets: tuple[str, ...]) -> list[tuple[str, str]]:
    if len(targets) == 1:
        return [("", targets[0])]
    named: dict[str, str] = {}
    for target in targets:
        name = k.name(target.replace(os.sep, "/").rstrip("/").partition("?")[0]) or "root"
        if name in named:
            raise click.UsageError(f"{named[name]!r} and {target!r} would both be {name!r}: serve one of them")
        named[name] = target
    return list(named.items())
