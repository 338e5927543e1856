"""Reference files that lie: numbers, tables and templates made to fill the memory, to go on for ever, or to mislead."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from tests.support.cases import each_of
from zarrstore import ReferenceStore
from zarrstore.errors import DamagedStoreError

pa = pytest.importorskip("pyarrow", reason="needs pyarrow: pip install zarrstore[references]")
pq = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("jinja2", reason="needs jinja2: pip install zarrstore[references]")

TARGET = bytes(range(256))
ZARRAY = {"shape": [6], "chunks": [1], "dtype": "<i4", "compressor": None, "fill_value": 0, "order": "C"}
BAD_TEXT = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")])
GOOD = {"path": ["t"] * 6, "offset": [1] * 6, "size": [4] * 6}


def parquet(table: Any = None, record_size: Any = 10, **members: Any) -> ReferenceStore:
    metadata = {".zgroup": {"zarr_format": 2}, "a/.zarray": ZARRAY | {"zarr_format": 2} | members}
    files = {".zmetadata": json.dumps({"metadata": metadata, "record_size": record_size}).encode()}
    buffer = io.BytesIO()
    pq.write_table(pa.table(GOOD) if table is None else table, buffer)
    files["a/refs.0.parq"] = buffer.getvalue()
    return ReferenceStore.from_parquet(files, lambda url: ({"t": TARGET}, url))


@each_of("size", [float("inf"), float("nan"), 10.0, True, "10", None, -1, 0, [10]])
def test_a_record_size_is_a_number_of_rows(size):
    with pytest.raises(DamagedStoreError, match="record_size"):
        parquet(record_size=size)


@each_of(
    "members",
    [
        *({"shape": [value]} for value in (float("inf"), 1e400, -6, 1.5, "6", None, True)),
        *({"chunks": [value]} for value in (0, -1, 0.1, True, float("nan"))),
        *({"dimension_separator": value} for value in (5, True, ["."], "/../", "//", "0", "\0")),
        {"shape": "6", "chunks": "1"},
        {"shape": [6, 6]},
        {"shape": 6},
    ],
)
def test_a_grid_that_is_none_is_damage(members):
    with pytest.raises(DamagedStoreError, match=r"a/\.zarray"):
        parquet(**members)


@each_of("members", [{"shape": [10**15]}, {"shape": [10**400]}, {"shape": [10**9] * 4, "chunks": [1] * 4}])
def test_a_shape_that_lies_does_not_make_a_listing_longer(members):
    rank = len(members["shape"])
    wanted = ["a/" + ".".join(["0"] * (rank - 1) + [str(n)]) for n in range(6)]
    assert [key for key in parquet(**members) if not key.endswith(("y", "p", "ata"))] == wanted
    assert len(list(parquet(record_size=10**30, **members))) == 9


@each_of("key", ["a/" + "9" * 5000, "a/" + "0" * 5000, "a/" + "1." * 3000, "a/00", "a/6", "a/\u0661", "a/-1"])
def test_a_name_that_is_no_chunk_is_absent(key):
    assert key not in parquet()


@each_of(
    "columns",
    [
        {"offset": [-5] * 6},
        {"size": [-5] * 6},
        {"offset": ["x"] * 6},
        {"offset": ["1"] * 6},
        {"offset": [float("nan")] * 6},
        {"offset": [float("inf")] * 6},
        {"offset": [1.5] * 6},
        {"offset": [[1]] * 6},
        {"path": [5] * 6},
        {"path": [b"t"] * 6},
        {"path": pa.chunked_array([BAD_TEXT] * 6)},
        {"raw": pa.chunked_array([BAD_TEXT] * 6)},
    ],
)
def test_a_row_that_is_no_reference_is_damage_and_not_absence(columns):
    store = parquet(pa.table(GOOD | columns))
    for read in (lambda: store["a/0"], lambda: "a/0" in store, lambda: list(store), lambda: store.get("a/0")):
        with pytest.raises(DamagedStoreError, match="row 0"):
            read()


def test_two_columns_of_one_name_are_damage_and_not_absence():
    store = parquet(pa.table([["t"], ["u"]], names=["path", "path"]))
    with pytest.raises(DamagedStoreError, match="table"):
        store.get("a/0")


def rendered(url: str, **templates: str) -> str:
    seen: list[str] = []

    def targets(found: str) -> tuple[dict[str, bytes], str]:
        seen.append(found)
        return {"t": TARGET}, "t"

    document = {"version": 1, "templates": {"u": "t", **templates}, "refs": {"a": [url, 0, 1]}}
    assert ReferenceStore(json.dumps(document).encode(), targets)["a"] == b"\0"
    return seen[0]


TWICE = "{{ f(f=f,n=n-1) if n else '' }}"


@each_of(
    ("url", "templates"),
    [
        ("{{ 'x'|center(2000000000) }}", {}),
        ("{{ '%2000000000d' % 5 }}", {}),
        ("{{ '%*d' % (2000000000, 5) }}", {}),
        ("{{ '{:2000000000}'.format(5) }}", {}),
        ("{{ '{:{}}'.format(5, 2000000000) }}", {}),
        ("{{ 'x'.ljust(2000000000) }}", {}),
        ("{{ u.replace('', u).replace('', u) }}", {}),
        ("{{ (5).to_bytes(2000000000, 'big') }}", {}),
        ("{{ lipsum(n=10000000) }}", {}),
        ("{{ range(99999)|list }}", {}),
        ("{% for i in [1, 2] %}{% for j in [1, 2] %}{% endfor %}{% endfor %}{{ u|lower }}", {}),
        ("{{" + "~".join(["u"] * 50_000) + "}}", {}),
        ("{{ f(f=f, n=60) }}", {"f": TWICE + TWICE}),
        ("{{ f(f=f) }}", {"f": "{{ f(f=f) }}"}),
        ("{{" + "f(c=" * 30 + "'x'" + ")" * 30 + "}}", {"f": "{{c}}{{c}}"}),
        ("{{ ''.__class__ }}", {}),
    ],
)
def test_a_template_that_fills_the_memory_or_never_ends_is_refused(url, templates):
    with pytest.raises(DamagedStoreError):
        rendered(url, **templates)


def test_templates_that_people_write_are_rendered():
    assert rendered("{{u}}/{{ '%03d' % 5 }}_{{ '{:02d}'.format(7) }}{{ (2 + 1) * 1000 }}") == "t/005_073000"
    assert rendered("{{ f(c='text') }}{{ u.upper() }}{{ 'A'|lower }}", f="s3://{{c}}/x") == "s3://text/xTa"


def test_all_entries_of_gen_together_have_a_bound(monkeypatch):
    monkeypatch.setattr("zarrstore.bridges.references.document._MOST_GENERATED", 10)
    one = {"key": "a{{i}}", "url": "t", "dimensions": {"i": {"stop": 4}}}
    document = {"version": 1, "refs": {}, "gen": [one] * 2}
    assert len(ReferenceStore(document, lambda url: ({}, url))) == 4
    with pytest.raises(DamagedStoreError, match="10 are allowed"):
        ReferenceStore(document | {"gen": [one] * 3}, lambda url: ({}, url))


def test_base64_that_is_not_ascii_is_damage():
    with pytest.raises(DamagedStoreError, match="base64"):
        ReferenceStore({"x": "base64:é"}, lambda url: ({}, url)).get("x")
