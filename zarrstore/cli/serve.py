"""The verb ``serve``."""

from __future__ import annotations

import os
from contextlib import ExitStack

import click

from zarrstore import keys as k
from zarrstore.base import Store
from zarrstore.cli.common import echo_err, not_empty, opened, storage_options
from zarrstore.optional import require
from zarrstore.wrappers.v2view import V2View
from zarrstore.wrappers.v3view import V3View

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@click.command()
@click.argument("targets", nargs=-1, required=True, metavar="TARGET...")
@click.option("--host", default="127.0.0.1", show_default=True, callback=not_empty, help="Address to listen at.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@click.option("--as", "version", type=click.Choice(["v2", "v3"]), help="Show the data under the keys of this version.")
@click.option("--token", envvar="ZARRSTORE_TOKEN", help="Refuse who does not send it: Authorization: Bearer TOKEN.")
@click.option("--consolidate/--no-consolidate", default=True, show_default=True, help="Make consolidated metadata.")
@storage_options
def command(
    targets: tuple[str, ...],
    host: str,
    port: int,
    version: str | None,
    token: str | None,
    consolidate: bool,
    storage_option: tuple[str, ...],
) -> None:
    """Let browsers and programs read TARGETs by HTTP: one at /, several each below its name. Nothing can be written."""
    uvicorn = require("uvicorn", extra="serve", feature="zarrstore serve")
    from zarrstore.server import make_app

    if host not in _LOOPBACK and not token:
        echo_err(f"note: anybody who reaches {host} can read this; --token asks for a word")
    with ExitStack() as stack:
        stores = {name: stack.enter_context(opened(target, "r", storage_option)) for name, target in _named(targets)}
        shown = {name: _as(version, store) for name, store in stores.items()}
        app = make_app(shown, token=token, consolidate=consolidate)
        config = uvicorn.Config(app, host=host, port=port, log_level="warning", access_log=False, server_header=False)
        server = uvicorn.Server(config)
        sock = config.bind_socket()
        sock.listen(2048)  # who reads the line below may connect at once
        place = f"[{host}]" if ":" in host else host
        echo_err(f"serving {', '.join(targets)} at http://{place}:{sock.getsockname()[1]}/ (Ctrl-C ends it)")
        server.run(sockets=[sock])


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
