"""Arrays of objects: what version 3 can say stays as it is, what it cannot is encoded anew when that is asked for."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle

import numcodecs
import numpy as np
import pytest
import zarr

import zarrstore
from tests.bridges import legacy
from tests.support import peers
from zarrstore import DirectoryStore, UnsupportedOperation, init_array, migrate_2to3, read_array
from zarrstore.cli.group import run
from zarrstore.metadata import v2
from zarrstore.metadata.chunk import encode_chunk
from zarrstore.testing import CountingStore
from zarrstore.tools.objects import MEMBER
from zarrstore.wrappers.base import Wrapper

TEXTS = ["a", "", "ü\n", "long " * 50, "0"]
MISSING = ["a", None, "b", None, "c"]
MIXED = ["a", 1, None, {"k": [1, 2.5, True]}, ["x", None]]


def objects(items, shape=None):
    array = np.empty(len(items), dtype=object)
    for at, item in enumerate(items):
        array[at] = item
    return array if shape is None else array.reshape(shape)


def written(items, codec, chunks=2, shape=None, **members):
    """Return a store with one array of these objects at ``a``, as zarr 2 writes it."""
    store = {}
    array = objects(items, shape)
    options = {"compressor": {"id": "zlib", "level": 1}, "fill_value": None, "dtype": "O", **members}
    codec = {"id": codec} if isinstance(codec, str) else codec
    init_array(store, shape=array.shape, chunks=chunks, object_codec=codec, path="a", **options)
    meta = v2.decode_array(store["a/.zarray"])
    for coords in np.ndindex(meta.grid_shape):
        chunk = np.empty(meta.chunks, dtype=object)
        chunk[...] = meta.fill_value
        part = array[tuple(slice(at * n, (at + 1) * n) for at, n in zip(coords, meta.chunks, strict=True))]
        chunk[tuple(slice(0, n) for n in part.shape)] = part
        store["a/" + ".".join(map(str, coords))] = encode_chunk(chunk, meta)
    return store


def opened(store, tmp_path):
    """Return the array as zarr 3 reads it."""
    DirectoryStore(tmp_path / "v3").update(store)
    return zarr.open_array(tmp_path / "v3" / "a", mode="r", zarr_format=3)


def note(report):
    return next(node for node in report if node.path == "a").notes[0]


@pytest.mark.parametrize("codec", ["json2", "msgpack2", "pickle"])
def test_text_becomes_strings_and_bytes_become_bytes(codec, tmp_path):
    dest = {}
    report = migrate_2to3(written(TEXTS, codec), dest, objects="unpickle")
    assert note(report) == f"re-encoded from {codec!r} to strings: items are as they were"
    array = opened(dest, tmp_path)
    assert array[...].tolist() == TEXTS
    assert json.loads(dest["a/zarr.json"])["data_type"] == "string"
    assert MEMBER not in array.attrs
    if codec != "json2":
        dest = {}
        report = migrate_2to3(written([b"x", b"", b"\xff"], codec), dest, objects="unpickle")
        assert note(report) == f"re-encoded from {codec!r} to bytes: items are as they were"
        assert read_array(dest, "a").tolist() == [b"x", b"", b"\xff"]
        assert json.loads(dest["a/zarr.json"])["data_type"] == "variable_length_bytes"


@pytest.mark.parametrize("codec", ["json2", "msgpack2", "pickle"])
def test_what_is_neither_becomes_the_text_of_json_and_says_so(codec, tmp_path):
    dest = {}
    report = migrate_2to3(written(MIXED, codec), dest, objects="unpickle")
    assert note(report).startswith(f"re-encoded from {codec!r} to strings, each the text of a JSON value")
    array = opened(dest, tmp_path)
    assert [json.loads(text) for text in array[...].tolist()] == MIXED
    assert array.attrs[MEMBER]["id"] == codec


def test_an_empty_text_stands_for_what_is_missing_only_where_nothing_is_lost(tmp_path):
    cases = {
        "null": (MISSING, {}),
        "NaN": (["a", float("nan"), "b"], {}),
        "0, the fill value": (["a", 0, "b"], {"fill_value": 0}),
    }
    for name, (items, members) in cases.items():
        dest = {}
        report = migrate_2to3(written(items, "json2", **members), dest, objects="reencode")
        assert note(report) == f"re-encoded from 'json2' to strings; '' is {name}"
        assert read_array(dest, "a").tolist() == [item if isinstance(item, str) else "" for item in items]
    for items, members in [(["a", None, ""], {}), (["a", None, float("nan")], {}), (["a", 0], {"fill_value": None})]:
        dest = {}
        assert "JSON" in note(migrate_2to3(written(items, "json2", **members), dest, objects="reencode"))
        assert repr([json.loads(text) for text in read_array(dest, "a").tolist()]) == repr(items)


def test_chunks_that_were_never_written_are_the_fill_value_in_the_new_words(tmp_path):
    for fill, items, expected in [
        ("x", TEXTS, "x"),
        (7, [1, 2, 3, 4, 5], "7"),
        (None, MIXED, "null"),
        (0, MISSING, "0"),
    ]:
        store, dest = written(items, "json2", fill_value=fill), {}
        del store["a/1"]
        migrate_2to3(store, dest, objects="reencode")
        assert "a/1" not in dest
        assert opened(dest, tmp_path)[2:4].tolist() == [expected, expected]


@pytest.mark.parametrize("order", ["C", "F"])
def test_shapes_with_partial_edges_and_either_order(order, tmp_path):
    items = [f"{n}" for n in range(35)]
    for codec in ("pickle", "vlen-utf8"):
        store = written(items, codec, chunks=(3, 2), shape=(7, 5), order=order)
        before = read_array(store, "a").tolist() if codec != "pickle" else objects(items, (7, 5)).tolist()
        dest = {}
        migrate_2to3(store, dest, objects="unpickle")
        assert opened(dest, tmp_path)[...].tolist() == before


def test_arrays_of_variable_length_are_shown_as_bytes_with_their_chunks_as_they_were(tmp_path):
    items = [np.arange(3, dtype="<i4"), np.array([], "<i4"), np.array([7], "<i4")]
    store = written(items, {"id": "vlen-array", "dtype": "<i4"}, fill_value=0)
    dest = {}
    report = migrate_2to3(store, dest, objects="reencode")
    assert "numpy.frombuffer(item, '<i4')" in note(report)
    assert [dest[key] for key in ("a/0", "a/1")] == [store[key] for key in ("a/0", "a/1")]
    array = opened(dest, tmp_path)
    assert array.attrs[MEMBER] == {"id": "vlen-array", "dtype": "<i4"}
    for found, item in zip(array[...].tolist(), items, strict=True):
        np.testing.assert_array_equal(np.frombuffer(found, "<i4"), item)


def test_categories_become_their_labels(tmp_path):
    labels = ["red", "blue"]
    for dtype in ("O", "<U4"):
        codec = numcodecs.Categorize(labels, dtype=dtype if dtype != "O" else object)
        store = {}
        meta = v2.build_array(shape=5, chunks=2, dtype="<U4", filters=[codec], compressor=None, fill_value="")
        store["a/.zarray"] = v2.encode_array(dataclasses.replace(meta, dtype="|O" if dtype == "O" else dtype))
        store.update({"a/0": b"\x01\x02", "a/1": b"\x02\x00", "a/2": b"\x01\x00"})
        assert read_array(store, "a").tolist() == ["red", "blue", "blue", "", "red"]
        dest = {}
        report = migrate_2to3(store, dest, objects="reencode")
        assert "'categorize'" in note(report)
        assert opened(dest, tmp_path)[...].tolist() == ["red", "blue", "blue", "", "red"]


def test_what_version_3_can_say_stays_untouched_and_the_rest_is_impossible_unless_asked_for():
    store = {}
    for path, codec in (("text", "vlen-utf8"), ("bytes", "vlen-bytes"), ("json", "json2")):
        init_array(store, shape=1, dtype="O", object_codec={"id": codec}, compressor=None, path=path)
    store.update({"text/0": b"\x01\0\0\0\x01\0\0\0x", "bytes/0": b"\x01\0\0\0\x01\0\0\0x", "json/0": b'["x","|O",[1]]'})
    dest = {}
    report = migrate_2to3(store, dest)
    assert report.counts() == {"migrated": 3, "impossible": 1}
    (node,) = [node for node in report if node.action == "impossible"]
    assert node.path == "json"
    assert any("objects='reencode'" in one for one in node.notes)
    again = {}
    assert migrate_2to3(store, again, objects="reencode").counts() == {"migrated": 4}
    for path in ("text/0", "bytes/0"):
        assert dest[path] == again[path] == store[path]


def test_objects_are_encoded_anew_into_a_destination_only_and_the_source_is_not_written():
    store = written(TEXTS, "json2")
    before = dict(store)
    with pytest.raises(UnsupportedOperation, match="pass dest"):
        migrate_2to3(store, objects="reencode")
    with pytest.raises(ValueError, match="'reencode'"):
        migrate_2to3(store, {}, objects="all")
    dest = {}
    assert migrate_2to3(store, dest, objects="reencode", dry_run=True).counts() == {"planned": 2}
    assert dest == {}
    migrate_2to3(store, dest, objects="reencode")
    assert migrate_2to3(store, dest, objects="reencode").counts() == {"kept": 2}
    assert store == before


def test_pickles_wait_until_they_are_asked_for():
    store, dest = written(TEXTS, "pickle"), {}
    report = migrate_2to3(store, dest, objects="reencode")
    assert report.counts() == {"migrated": 1, "impossible": 1}
    assert "objects='unpickle'" in note(report)
    assert "a/0" not in dest


class Run:
    """Pickles as a call of os.system."""

    def __reduce__(self):
        return os.system, ("true",)


def test_a_hostile_pickle_makes_its_array_impossible_and_runs_nothing(monkeypatch):
    store = written(TEXTS, "pickle")
    store["b/.zarray"], store["b/0"] = store["a/.zarray"], store["a/0"]
    store["b/1"] = numcodecs.Zlib().encode(pickle.dumps(objects([Run(), 1])))
    monkeypatch.setattr(os, "system", lambda *_: pytest.fail("run"))
    dest = {}
    report = migrate_2to3(store, dest, objects="unpickle")
    assert report.counts() == {"migrated": 2, "impossible": 1}
    (node,) = [node for node in report if node.action == "impossible"]
    assert "chunk 'b/1': pickle cannot decode it: the pickle names posix.system" in node.notes[0].replace(
        "nt.", "posix."
    )
    assert not [key for key in dest if key.startswith("b/")]
    assert "NUMCODECS_ALLOW_UNSAFE_PICKLE_DECODE" not in os.environ


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        ([b"x", "y"], "bytes among other values"),
        ([{1: 2}, "y"], "keys that are no text"),
        ([b"x", None, b""], "empty bytes beside null"),
    ],
)
def test_what_is_neither_text_nor_bytes_nor_json_is_refused_by_name(items, reason):
    report = migrate_2to3(written(items, "pickle"), {}, objects="unpickle")
    assert report.counts()["impossible"] == 1
    assert reason in note(report)
    assert not any("objects='" in one for node in report for one in node.notes)


def test_text_with_unpaired_surrogates_is_kept_as_json(tmp_path):
    dest = {}
    migrate_2to3(written(["\ud800", "b"], "json2"), dest, objects="reencode")
    assert [json.loads(text) for text in opened(dest, tmp_path)[...].tolist()] == ["\ud800", "b"]


def test_they_go_into_shards_and_into_a_repository_too(tmp_path):
    icechunk = pytest.importorskip("icechunk", reason="needs icechunk: pip install zarrstore[icechunk]")
    from zarrstore.bridges.icechunk import IcechunkStore

    store, dest = written(MIXED, "msgpack2"), {}
    report = migrate_2to3(store, dest, objects="reencode", shards=(4,))
    assert "JSON" in note(report)
    assert [json.loads(text) for text in opened(dest, tmp_path)[...].tolist()] == MIXED
    repository = IcechunkStore(icechunk.Repository.create(icechunk.in_memory_storage()))
    report, commit = zarrstore.migrate_to_icechunk(store, repository, objects="reencode")
    assert commit is not None
    assert report.counts() == {"migrated": 2}
    assert [json.loads(text) for text in read_array(repository, "a").tolist()] == MIXED


def test_a_second_run_with_a_journal_goes_on_by_the_identity_of_the_old_chunks(tmp_path, monkeypatch):
    source, dest = DirectoryStore(tmp_path / "s"), CountingStore(DirectoryStore(tmp_path / "d"))
    source.update(written([f"{n}" for n in range(400)], "json2"))
    n_writes = 0

    class Failing(Wrapper):
        def _set(self, key, value):
            nonlocal n_writes
            n_writes += 1
            if n_writes > 70:
                raise OSError("full")
            super()._set(key, value)

    with pytest.raises(OSError, match="full"):
        migrate_to_shards_or_copy(source, Failing(dest), tmp_path)
    assert not any(key.endswith("zarr.json") for key in dest)
    migrate_to_shards_or_copy(source, dest, tmp_path)
    assert opened(dict(dest), tmp_path)[...].tolist() == [f"{n}" for n in range(400)]


def migrate_to_shards_or_copy(source, dest, tmp_path):
    migrate_2to3(source, dest, objects="reencode", shards=(4,), resume=tmp_path / "journal")


def test_the_command_asks_for_it_by_name(tmp_path, capsys):
    DirectoryStore(tmp_path / "s").update(written(TEXTS, "pickle"))
    command = ["migrate", str(tmp_path / "s"), "--objects", "unpickle"]
    assert run(command) == 2
    assert "--dest" in capsys.readouterr().err
    report = tmp_path / "report.json"
    assert run([*command, "--dest", str(tmp_path / "d"), "--report", str(report)]) == 0
    assert read_array(tmp_path / "d", "a").tolist() == TEXTS
    (node,) = [node for node in json.loads(report.read_text())["nodes"] if node["path"] == "a"]
    assert "re-encoded from 'pickle' to strings: items are as they were" in node["notes"]


def test_the_genuine_hierarchy_goes_over_as_a_whole():
    dest = {}
    report = migrate_2to3(DirectoryStore(legacy.DATA / "legacy.zarr"), dest, objects="reencode")
    assert "impossible" not in report.counts()
    (node,) = [node for node in report if node.path == "stations/meta"]
    assert node.notes[0].startswith("re-encoded from 'msgpack2'")


WRITE = """
import sys, pickle, warnings, os
warnings.simplefilter("ignore")
import numpy as np, numcodecs, zarr
root = zarr.open_group(sys.argv[1], mode="w")
numcodecs.pickles.ALLOW_UNSAFE_PICKLE_DECODE = True
texts = ["a", "", "\\u00fc\\n", "0", "x" * 300, "b", "c"]
missing = ["a", None, "b", None, "c", "d", None]
mixed = ["a", 1, None, {"k": [1, 2.5, True]}, ["x", None], False, "\\u00fc"]
data = [b"a", b"", b"\\xff\\x00", b"b", b"c", b"d", b"e"]
several = {"texts": texts, "missing": missing, "mixed": mixed, "data": data}
codecs = {"json": numcodecs.JSON(), "msgpack": numcodecs.MsgPack(), "pickle": numcodecs.Pickle(),
          "pickle2": numcodecs.Pickle(protocol=2)}
expected = {}
def put(name, items, **options):
    x = np.empty(len(items), dtype=object)
    x[:] = items
    for fill in (None, 0, "") if name != "vlen" else (None, 0):
        for shape, chunks in (((7,), (3,)), ((7, 1), (2, 1))):
            path = f"{name}-{fill}-{len(shape)}"
            z = root.create_dataset(path, shape=shape, chunks=chunks, fill_value=fill, **{"dtype": object, **options})
            z[...] = x.reshape(shape)
            grown = root.create_dataset(path + "-part", shape=shape, chunks=chunks, fill_value=fill,
                                        **{"dtype": object, **options})
            grown[:4] = x.reshape(shape)[:4]
            for one in (path, path + "-part"):
                values = root[one][...].reshape(-1).tolist()
                expected[one] = [v.tolist() if isinstance(v, np.ndarray) else v for v in values]
for codec_name, codec in codecs.items():
    for name, items in several.items():
        if name != "data" or codec_name != "json":
            put(f"{codec_name}-{name}", items, object_codec=codec)
            more = {"filters": [numcodecs.Zlib(1)], "compressor": None}
            put(f"{codec_name}-{name}-filtered", items, object_codec=codec, **more)
put("categorize", ["a", "b", "", "a", "b", "b", "a"], filters=[numcodecs.Categorize(["a", "b"], dtype=object)])
x = [np.arange(n, dtype="<i2") for n in (3, 0, 1, 2, 5, 1, 1)]
put("vlen", x, object_codec=numcodecs.VLenArray("<i2"))
with open(sys.argv[2], "wb") as file:
    pickle.dump(expected, file, protocol=4)
"""
READ = """
import sys, json, pickle, warnings
warnings.simplefilter("ignore")
import numpy as np, zarr
expected = pickle.load(open(sys.argv[2], "rb"))
notes = json.load(open(sys.argv[3]))
root = zarr.open_group(sys.argv[1], mode="r", zarr_format=3, use_consolidated=False)
wrong, kinds = [], {}
for name, values in expected.items():
    if name not in notes:
        continue
    note = notes[name]
    found = root[name][...].reshape(-1).tolist()
    if "JSON" in note:
        kind, found = "json", [json.loads(text) for text in found]
    elif "frombuffer" in note:
        kind, found = "arrays", [np.frombuffer(one, "<i2").tolist() for one in found]
        values = [[] if one in (None, 0, "") else one for one in values]
    elif "'' is" in note:
        kind = "missing"
        values = [v if isinstance(v, (str, bytes)) else type(found[0])() for v in values]
    else:
        kind = "plain"
    kinds[kind] = kinds.get(kind, 0) + 1
    if found != values:
        wrong.append([name, note, repr(found)[:200], repr(values)[:200]])
print(json.dumps([wrong, kinds]))
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.needs_peer("zarr2", "z34")
@pytest.mark.parametrize("reader", ["self", "z34"])
def test_what_zarr_2_18_reads_before_zarr_3_reads_after(reader, tmp_path):
    peers.run("zarr2", WRITE, tmp_path / "v2.zarr", tmp_path / "expected", timeout=200)
    source, dest = DirectoryStore(tmp_path / "v2.zarr"), DirectoryStore(tmp_path / "v3.zarr")
    report = migrate_2to3(source, dest, objects="unpickle")
    impossible = {node.path: node.notes for node in report if node.action == "impossible"}
    notes = {node.path: node.notes[0] for node in report if node.kind == "array" and node.action == "migrated"}
    (tmp_path / "notes").write_text(json.dumps(notes))
    wrong, kinds = peers.run(reader, READ, dest.path, tmp_path / "expected", tmp_path / "notes", timeout=200)
    assert wrong == []
    # Bytes of which some are empty and some were never written: version 3 has one word for both.
    assert all("-data-" in path and path.endswith("-part") for path in impossible)
    assert len(impossible) == 36
    assert sum(kinds.values()) == len(notes) == 344
    assert set(kinds) == {"plain", "missing", "json", "arrays"}
