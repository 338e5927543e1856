"""Version 2 brought to version 3: chunks untouched, all nodes or none, read by zarr 3; the unsayable is listed."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.bridges import legacy
from tests.support import peers
from zarrstore import (
    DictStore,
    DirectoryStore,
    check_consolidated,
    consolidate_metadata,
    init_array,
    init_group,
    migrate_1to3,
    migrate_2to3,
    read_array,
    verify,
)
from zarrstore.errors import MetadataError, ReadOnlyError
from zarrstore.testing import FailingStore

V1 = Path(__file__).parent.parent / "data" / "v1"


def hierarchy() -> dict[str, bytes]:
    return dict(DirectoryStore(legacy.DATA / "legacy.zarr").items())


def digests(store: Any) -> dict[str, str]:
    return {key: hashlib.sha256(value).hexdigest() for key, value in store.items() if not key.endswith("zarr.json")}


def small() -> dict[str, bytes]:
    store: dict[str, bytes] = {}
    init_array(store, shape=4, chunks=2, dtype="<i4", path="g/a", compressor=None, fill_value=0)
    init_array(store, shape=4, chunks=2, dtype=object, object_codec={"id": "json2"}, path="g/h/odd")
    store.update({"g/a/0": bytes(8), "g/a/.zattrs": b'{"_ARRAY_DIMENSIONS": ["x"], "units": "m"}', "g/h/odd/0": b"?"})
    return store


@pytest.mark.parametrize("kind", [*(name for name in legacy.LEGACY if name not in ("ZipStore", "DBMStore")), "dict"])
def test_the_genuine_hierarchy_keeps_its_chunks_and_gets_a_document_for_all_but_one(kind: str, tmp_path: Path) -> None:
    store = DictStore(hierarchy()) if kind == "dict" else legacy.LEGACY[kind](tmp_path)
    with store:
        before = digests(store)
        report = migrate_2to3(store)
        assert digests(store) == before
        assert report.counts() == {"migrated": 22, "impossible": 1}
        (node,) = [node for node in report if node.action == "impossible"]
        assert node.path == "stations/meta"
        assert "msgpack2" in node.notes[0]
        assert verify(store)


READ = """
import json, sys, warnings
warnings.simplefilter("ignore")
import numpy as np, zarr
arrays = json.loads(sys.argv[3])
group = zarr.open_group(sys.argv[1], mode="r", zarr_format=3)
wrong = []
for path, file in arrays.items():
    got = group[path][...]
    if file:
        wanted = np.load(f"{sys.argv[2]}/{file}")
        if not np.array_equal(got, wanted, equal_nan=wanted.dtype.kind in "fc"):
            if not (wanted.dtype.kind == "V" and got.tobytes() == wanted.tobytes()):
                wrong.append(path)
print(json.dumps([zarr.__version__, wrong, sorted(group.array_keys()), dict(group.attrs)]))
"""


@pytest.mark.parametrize("peer", ["self", "z34"])
def test_zarr_3_reads_every_array_that_version_3_can_say(peer: str, tmp_path: Path) -> None:
    if peer == "self":
        zarr = pytest.importorskip("zarr", reason="needs zarr 3: pip install zarrstore[zarr3]")
        if not zarr.__version__.startswith("3"):
            pytest.skip("needs zarr 3: pip install zarrstore[zarr3]")
    store = DirectoryStore(tmp_path / "h")
    store.update(hierarchy())
    migrate_2to3(store, remove_v2=True)
    import sys

    interpreter = sys.executable if peer == "self" else peers.python(peer)
    wanted = {path: entry["file"] for path, entry in legacy.ARRAYS.items() if path not in legacy.NOT_ZARR_3}
    done = subprocess.run(
        [interpreter, "-c", READ, str(tmp_path / "h"), str(legacy.DATA / "expected"), json.dumps(wanted)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    version, wrong, _, attrs = json.loads(done.stdout)
    assert wrong == []
    assert attrs["title"] == "legacy survey"
    assert version.startswith("3.")


def test_attributes_dimensions_and_null_fills() -> None:
    store = small()
    init_array(store, shape=3, dtype="f8", path="nofill")
    report = migrate_2to3(store)
    document = json.loads(store["g/a/zarr.json"])
    assert document["dimension_names"] == ["x"]
    assert document["attributes"] == {"units": "m"}
    assert json.loads(store["nofill/zarr.json"])["fill_value"] == 0.0
    assert any("null" in note for node in report if node.path == "nofill" for note in node.notes)


def test_consolidated_metadata_becomes_inline() -> None:
    store = small()
    consolidate_metadata(store)
    migrate_2to3(store)
    inline = json.loads(store["zarr.json"])["consolidated_metadata"]
    assert inline["kind"] == "inline"
    assert sorted(inline["metadata"]) == ["g", "g/a", "g/h"]
    assert "consolidated_metadata" not in json.loads(store["g/zarr.json"])
    assert not check_consolidated(store)


@pytest.mark.parametrize("remove_v2", [False, True])
def test_a_failure_at_any_write_or_deletion_leaves_everything_as_it_was(remove_v2: bool) -> None:
    writes = ["_set", "_set_many", "_delete", "_delete_many"]
    ended = False
    for point in range(40):
        inner = DictStore(small())
        before = dict(inner)
        failing = FailingStore(inner, OSError(28, "full"), methods=writes, after=point, times=1)
        try:
            migrate_2to3(failing, remove_v2=remove_v2)
        except OSError:
            assert dict(inner) == before, point
        else:
            ended = failing.failures == 0
            break
    assert ended
    assert point >= 3


def test_a_document_that_another_writer_changes_meanwhile_is_not_removed() -> None:
    class Shared(DictStore):
        def _flush(self) -> None:  # the documents of version 3 stand, those of version 2 are to be removed
            self["g/a/.zattrs"] = b'{"new": 1}'

    store = Shared(small())
    before = dict(store)
    with pytest.raises(OSError, match=r"'g/a/\.zattrs' was changed by another writer"):
        migrate_2to3(store, remove_v2=True)
    assert dict(store) == {**before, "g/a/.zattrs": b'{"new": 1}'}
    migrate_2to3(store, remove_v2=True)
    assert json.loads(store["g/a/zarr.json"])["attributes"] == {"new": 1}


def test_where_even_putting_back_fails_the_error_says_what_is_left() -> None:
    inner = DictStore(small())
    failing = FailingStore(inner, OSError(5, "broken"), methods=["_set_many", "_delete_many"], after=2)
    with pytest.raises(OSError) as caught:
        migrate_2to3(failing)
    assert any("not put back" in note for note in caught.value.__notes__)
    assert {key: inner[key] for key in small()} == small()


def test_the_documents_of_version_2_go_only_if_told_and_never_of_what_version_3_cannot_say() -> None:
    store = small()
    migrate_2to3(store)
    assert set(small()) <= set(store)
    migrate_2to3(store, remove_v2=True)
    left = sorted(key for key in store if key.endswith((".zarray", ".zgroup", ".zattrs")))
    assert left == [".zgroup", "g/.zgroup", "g/h/.zgroup", "g/h/odd/.zarray"]
    assert (
        read_array({**store, **{k: v for k, v in small().items() if k.startswith("g/a/")}}, "g/a").tolist() == [0] * 4
    )


def test_a_dry_run_writes_nothing_and_a_second_run_keeps_what_stands() -> None:
    store = small()
    report = migrate_2to3(store, dry_run=True)
    assert store == small()
    assert report.counts() == {"planned": 4, "impossible": 1}
    migrate_2to3(store)
    after = dict(store)
    assert migrate_2to3(store).counts() == {"kept": 4, "impossible": 1}
    assert store == after


def test_another_version_3_document_is_not_replaced_unless_told() -> None:
    store = small()
    store["g/zarr.json"] = b'{"zarr_format": 3, "node_type": "group", "attributes": {"mine": 1}}'
    before = dict(store)
    with pytest.raises(MetadataError, match="overwrite=True"):
        migrate_2to3(store)
    assert store == before
    migrate_2to3(store, overwrite=True)
    assert json.loads(store["g/zarr.json"])["attributes"] == {}


def test_into_another_store_the_source_is_only_read(tmp_path: Path) -> None:
    source = small()
    dest = DirectoryStore(tmp_path / "d")
    assert migrate_2to3(source, dest).counts() == {"migrated": 4, "impossible": 1}
    assert source == small()
    assert sorted(dest) == ["g/a/0", "g/a/zarr.json", "g/h/zarr.json", "g/zarr.json", "zarr.json"]
    assert verify(dest)


def test_a_damaged_document_or_version_1_stops_it_before_anything_is_written() -> None:
    for key, data in (("bad/.zarray", b"{"), ("old/meta", b'{"zarr_format": 1}')):
        store = {**small(), key: data}
        before = dict(store)
        with pytest.raises(MetadataError):
            migrate_2to3(store)
        assert store == before


def test_nothing_there_is_a_keyerror_and_a_read_only_store_is_refused() -> None:
    from types import MappingProxyType

    with pytest.raises(KeyError):
        migrate_2to3({})
    with pytest.raises(ReadOnlyError):
        migrate_2to3(MappingProxyType(small()))  # type: ignore[arg-type]


def test_version_1_goes_all_the_way() -> None:
    fixtures = json.loads((V1 / "manifest.json").read_text())["fixtures"]
    store: dict[str, bytes] = {}
    init_group(store)
    for fixture in fixtures:
        for key in fixture["keys"]:
            store[f"{fixture['name']}/{key}"] = (V1 / fixture["name"] / key).read_bytes()
    before = {key: value for key, value in store.items() if not key.endswith(("meta", "attrs"))}
    planned = migrate_1to3(store, dry_run=True)
    assert sum(node.kind == "array" for node in planned) == 30
    report = migrate_1to3(store)
    assert [node.path for node in report] == [node.path for node in planned]
    assert {key: store[key] for key in before} == before
    assert sum(node.action == "migrated" for node in report) >= 28
