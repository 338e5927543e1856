"""What is answered for a place that is no key: a page for people, a listing for programs, a picture of a plane."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from zarrstore import keys as k
from zarrstore.base import Store
from zarrstore.errors import UnsupportedOperation
from zarrstore.optional import require
from zarrstore.server.replies import Reply
from zarrstore.shown import STYLE, escape
from zarrstore.tools.listing import listing_of, present
from zarrstore.tools.nearby import absent
from zarrstore.tools.read import plane
from zarrstore.tools.tree import TreeNode, tree

__all__ = ["index_of", "listing", "page", "picture"]

_POLICY = "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
#: Bytes of a plane that a picture is made of.
_PLANE = 64 << 20
_LEVELS = 4
_PICTURE = "max-width:100%;min-width:256px;image-rendering:pixelated"


def index_of(names: list[str]) -> Reply:
    """Return the page that names all stores."""
    items = "".join(f'<li><a href="{escape(quote(name, safe=""))}/">{escape(name)}</a></li>' for name in names)
    return _html("zarrstore", f"<ul>{items}</ul>")


def page(store: Store, path: str) -> Reply:
    """Return the page of a place: its tree, and a picture if it is an array of at least two axes."""
    try:
        root = tree(store, path, depth=_LEVELS)
    except UnsupportedOperation:
        return _html(path or "/", "<p>This store cannot be listed.</p>")
    except KeyError:
        if path and not store.listdir(path):
            raise
        names = "".join(f"<li>{escape(name)}</li>" for name in store.listdir(path)[:1000])
        return _html(path or "/", f"<ul>{names}</ul>")
    shown = _linked(root, path)
    node = root.node
    if node is not None and node.kind == "array":
        document = json.dumps(node.document, indent=2, ensure_ascii=False, default=str)
        if len(node.document.get("shape", ())) >= 2:
            shown += f'<p><img src="?picture" alt="the first plane" style="{_PICTURE}"></p>'
        # Line by line: an escaped line end would be shown as a sign.
        shown += f"<pre>{'<br>'.join(map(escape, document.splitlines()))}</pre>"
    return _html(path or "/", shown)


def _linked(root: TreeNode, path: str) -> str:
    links = "".join(
        f'<li><a href="{escape(_href(node.path, path))}">{escape(node.label)}</a></li>' for node in _arrays(root)
    )
    return f"{root._repr_html_()}{f'<h2>Arrays</h2><ul>{links}</ul>' if root.children else ''}"


def _href(path: str, base: str) -> str:
    relative = k.replace_root(path, base, "") if base else path
    # "./": a name with a colon in it would be a URL of that scheme.
    return f"./{quote(relative, safe='/')}/"


def _arrays(node: TreeNode) -> Iterator[TreeNode]:
    for child in node.children:
        if child.node is not None and child.node.kind == "array":
            yield child
        yield from _arrays(child)


def _html(title: str, body: str) -> Reply:
    text = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<body style="{STYLE};margin:2em"><h1 style="font-size:120%">{escape(title)}</h1>{body}</body></html>'
    ).encode()
    headers = {"content-type": "text/html; charset=utf-8", "content-security-policy": _POLICY}
    return Reply(200, {**headers, "content-length": str(len(text))}, text)


def listing(store: Store, path: str) -> Reply:
    """Return all keys below a path with their sizes, one JSON line each, and a last line that says how many there are.

    Notes
    -----
    A listing without its last line is cut short, and no reader takes it for whole.
    """
    found = listing_of(store, path, details=True)
    lines = [json.dumps({"zarrstore": "list", "version": 1, "path": path})]
    lines += [json.dumps([entry.key, entry.nbytes]) for entry in present(store, found)]
    if len(lines) == 1 and path and path not in store:
        raise absent(store, path)
    lines.append(json.dumps({"keys": len(lines) - 1}))
    body = "\n".join([*lines, ""]).encode()
    headers = {"content-type": "application/x-ndjson", "content-length": str(len(body)), "cache-control": "no-cache"}
    return Reply(200, headers, body)


def picture(store: Store, path: str, at: str) -> Reply:
    """Return a plane of an array as PNG: the last two axes, at the indices `at` of those before (``"0,3"``)."""
    require("matplotlib", extra="plot", feature="a picture")
    from matplotlib import image

    indices = tuple(int(part) for part in at.split(",") if part.strip().isdigit())
    values = _shades(plane(store, path, indices, max_nbytes=_PLANE))
    out = io.BytesIO()
    image.imsave(out, values, cmap="viridis", format="png")
    body = out.getvalue()
    return Reply(
        200, {"content-type": "image/png", "content-length": str(len(body)), "cache-control": "no-cache"}, body
    )


def _shades(values: Any) -> Any:
    """Return numbers that a picture can show, at most 1024 a side."""
    import numpy as np

    steps = tuple(slice(None, None, max(1, -(-n // 1024))) for n in values.shape)
    taken = values[steps]
    if taken.dtype.kind == "c":
        taken = abs(taken)
    if taken.dtype.kind in "mM":
        taken = taken.astype("i8")
    if taken.dtype.kind not in "biuf":
        raise KeyError("no picture of such values")
    shades = np.asarray(taken, dtype="f8")
    return np.where(np.isfinite(shades), shades, np.nan)
