"""Results show themselves: at most 30 lines at a prompt, HTML that shows hostile names and does not obey them."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

import zarrstore
from tests.support.cases import each_of
from zarrstore import DictStore
from zarrstore.shown import LINES, clip, printable

HOSTILE = '<script>alert("x")</script>&\x1b[2J\u202e\ud800\'"'


def hierarchy(names):
    store = DictStore()
    for name in names:
        zarrstore.init_array(store, shape=4, chunks=2, dtype="|u1", compressor=None, path=name)
        store[f"{name}/0"] = b"12"
    return store


class Tags(HTMLParser):
    """Collects the tags and the text of a page."""

    def __init__(self):
        super().__init__()
        self.tags, self.text = set(), ""

    def handle_starttag(self, tag, attrs):
        self.tags |= {tag, *(f"@{name}" for name, _ in attrs)}

    def handle_data(self, data):
        self.text += data


def shown(html):
    parser = Tags()
    parser.feed(html)
    return parser


RESULTS = {
    "tree": lambda store: zarrstore.tree(store),
    "du": lambda store: zarrstore.du(store),
    "verify": lambda store: zarrstore.verify(store),
    "repair": lambda store: zarrstore.repair(store, dry_run=True),
    "respell": lambda store: zarrstore.respell(store, "/", dry_run=True),
    "migrate": lambda store: zarrstore.migrate_2to3(store, dry_run=True),
    "cache": lambda store: zarrstore.LRUStoreCache(store, None).stats(),
}


@pytest.mark.parametrize("result", RESULTS)
def test_a_result_of_many_rows_is_cut_at_thirty_lines(result):
    store = hierarchy([f"array-{n}" for n in range(50)])
    text = repr(RESULTS[result](store))
    assert 1 <= len(text.splitlines()) <= LINES
    if result not in ("repair", "cache", "verify", "respell"):
        assert "more lines" in text


@each_of("result", [*RESULTS, "store"])
def test_a_hostile_name_is_shown_and_not_obeyed(result):
    store = hierarchy([HOSTILE.replace("/", "").replace("\ud800", ""), "good"])
    found = store if result == "store" else RESULTS[result](store)
    page = shown(found._repr_html_())
    assert "script" not in page.tags
    assert page.tags <= {
        *("div", "b", "span", "details", "summary", "table", "thead", "tbody", "tr", "th", "td"),
        *("@style", "@open"),
    }
    assert not any(sign in found._repr_html_() + repr(found) for sign in ("\x1b", "\u202e"))


def test_a_store_in_a_notebook_shows_shape_chunks_bytes_ratio_and_what_is_written():
    text = shown(hierarchy(["foo"])._repr_html_()).text
    assert "foo (4) |u1 in chunks of (2) · 2 B · 50% written · ratio 1.0" in text


@pytest.mark.parametrize("held", [{}, {"a": b"", "b/c": b""}])
def test_what_is_no_hierarchy_shows_its_names(held):
    text = shown(DictStore(held)._repr_html_()).text
    assert f"no hierarchy, {len(held)} names" in text


def test_a_store_that_cannot_be_listed_shows_its_name():
    assert "127.0.0.1" in zarrstore.HTTPStore("http://127.0.0.1:9/x", retries=0)._repr_html_()


def test_a_text_that_fits_is_not_cut():
    assert clip("a\nb", 2) == "a\nb"
    assert printable("a\nb") == "a\\nb"
