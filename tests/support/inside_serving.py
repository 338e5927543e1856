"""Hostile paths asked of a server, in a world where an escape would be refused, and is looked for."""

from __future__ import annotations

import asyncio
import itertools
from urllib.parse import quote

from tests.support import world
from tests.support.servers.serving import ask
from zarrstore import DirectoryStore
from zarrstore.server import make_app
from zarrstore.testing import HOSTILE_KEYS


def hostile_urls():
    """Return 800 paths that lead outside, or try to."""
    steps = ["..", ".", "%2e%2e", "%2E.", "..%2f", "..\\", "%5c..", "%00", "%c0%ae%c0%ae", "....//", "%252e%252e", "~"]
    ends = ["etc/passwd", "secret", "a/0", "", "%2fetc%2fpasswd", "C:%5csecret", "secret%00.zarray"]
    paths = ["/" + quote(key, safe="/", errors="surrogatepass") for key in HOSTILE_KEYS if isinstance(key, str)]
    paths += [f"/data/{a}{end}" for a in steps for end in ends]
    paths += [f"/{a}/{b}/{end}" for a in steps for b in steps for end in ends[:5]]
    return [path.encode("latin-1", "replace") for path in paths][:800]


def test_no_hostile_path_leads_out_of_the_store(tmp_path):
    world.require_inside()
    (tmp_path / "secret").write_bytes(b"SECRET")
    held = DirectoryStore(tmp_path / "data")
    held["a/0"] = b"inside"
    app = make_app(held)
    urls = hostile_urls()
    assert len(urls) == 800
    with asyncio.Runner() as runner:
        for path, query in itertools.product(urls, ("", "list", "picture")):
            status, _, body = ask(app, "/", raw=path, query=query, run=runner.run)
            assert b"SECRET" not in body
            assert b"root:" not in body
            assert status == 404 or body == b"inside" or path.rstrip(b"/") in (b"", b"/a", b"/~")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "secret"]
