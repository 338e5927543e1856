"""Check the links within the manual that was built: ``python docs/links.py docs/_build/html``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

__all__ = ["broken_links"]


class _Page(HTMLParser):
    """The anchors of a page, and what it links to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors = {""}
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.anchors.add(named.get("id") or "")
        self.links += filter(None, (named.get("href"), named.get("src")))


def broken_links(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield each page with a link of it that leads to no file, or to no anchor of a page.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> size = (folder / "a.html").write_text('<a href="#x"></a><a href="b.html"></a><p id="y"><a href="a.html#y"></a>')
    >>> list(broken_links(folder))
    [('a.html', '#x'), ('a.html', 'b.html')]
    """
    pages = {path.resolve(): _Page(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.html"))}
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            place = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            is_page = place in pages
            if not place.exists() or (is_page and unquote(parts.fragment) not in pages[place].anchors):
                yield path.relative_to(folder.resolve()).as_posix(), link


if __name__ == "__main__":
    found = list(broken_links(Path(sys.argv[1])))
    for page, link in found:
        print(f"{page}: {link} leads nowhere")
    sys.exit(bool(found))
