"""The report of a migration: what became of each node, who reads it, and the checksums."""

from __future__ import annotations

import hashlib
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numcodecs
import pytest

from zarrstore import DirectoryStore, init_array, init_group, migrate_2to3, open_store, read_manifest, write_manifest
from zarrstore.cli.group import run
from zarrstore.metadata.readers import READERS, refusals
from zarrstore.tools.report import report_of, write_report

EVIL = "<script>alert('x')</script>"


@pytest.fixture
def old() -> dict[str, bytes]:
    store: dict[str, bytes] = {}
    init_group(store)
    init_array(store, (4, 4), (2, 2), "<i4", None, None, order="F", path="f")
    store.update({"f/0.0": bytes(16), "f/1.1": bytes(range(16)), "f/.zattrs": b'{"_ARRAY_DIMENSIONS": ["y", "x"]}'})
    init_array(store, 4, 2, ">f4", numcodecs.LZ4(), 0.0, path="big")
    init_array(store, 4, 2, "<U3", None, "", path="text")
    init_array(store, 4, 2, object, None, 0, object_codec=numcodecs.VLenUTF8(), path="objects")
    init_array(store, 4, 2, object, None, 0, object_codec=numcodecs.JSON(), path="json")
    store[f"{EVIL}/.zgroup"] = store[".zgroup"]
    return store


def node(found: dict[str, Any], path: str) -> dict[str, Any]:
    return next(one for one in found["nodes"] if one["path"] == path)


def test_each_node_with_what_was_done_what_changed_who_refuses_it_and_its_checksums(old: dict[str, bytes]) -> None:
    new: dict[str, bytes] = {}
    found = report_of(migrate_2to3(old, new), old, new)
    assert json.loads(json.dumps(found)) == found
    assert found["counts"] == {"migrated": 6, "impossible": 1}
    f = node(found, "f")
    assert [change.split(":")[0] for change in f["changes"]] == [
        "fill_value null became 0",
        "order F became the codec transpose",
        "the attribute _ARRAY_DIMENSIONS became dimension_names",
    ]
    assert f["refused_by"] == {}
    assert f["sha256"]["document"] == hashlib.sha256(new["f/zarr.json"]).hexdigest()
    assert (f["sha256"]["n_values"], f["sha256"]["nbytes"]) == (2, 32)
    assert node(found, "big")["refused_by"].keys() == {"TensorStore", "zarrs", "GDAL"}
    assert "byte order" in node(found, "big")["changes"][0]
    assert node(found, "text")["refused_by"].keys() == {"TensorStore", "zarrs", "zarrita", "GDAL"}
    assert "'string'" in node(found, "objects")["changes"][0]
    assert node(found, "objects")["refused_by"].keys() == {"TensorStore", "zarrs", "GDAL"}
    impossible = node(found, "json")
    assert (impossible["action"], impossible["refused_by"].keys()) == ("impossible", READERS.keys())
    assert "json2" in impossible["notes"][0]


def test_the_checksum_of_an_array_is_that_of_its_manifest(old: dict[str, bytes], tmp_path: Path) -> None:
    found = report_of(migrate_2to3(old), old)
    chunks = {key.removeprefix("f/"): value for key, value in old.items() if key in ("f/0.0", "f/1.1")}
    write_manifest(chunks, tmp_path / "manifest")
    assert len(read_manifest(tmp_path / "manifest")) == 2
    digest = hashlib.sha256((tmp_path / "manifest").read_bytes()).hexdigest()
    assert node(found, "f")["sha256"]["values"] == digest
    old["f/1.1"] = bytes(16)
    assert node(report_of(migrate_2to3(old), old), "f")["sha256"]["values"] != digest


class Page(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_page_shows_names_and_does_not_obey_them(old: dict[str, bytes], tmp_path: Path) -> None:
    old["f/.zattrs"] = json.dumps({"_ARRAY_DIMENSIONS": [EVIL]}).encode()
    write_report(migrate_2to3(old, {}, dry_run=True), tmp_path / "r.html", old, {}, names=(EVIL, "\x1b[2J\u202e"))
    page = Page((tmp_path / "r.html").read_text())
    assert "script" not in page.tags
    assert page.text.count(EVIL) == 3  # the source, a group, the names of the axes
    assert "a dry run" in page.text
    assert "TensorStore: it has no" in page.text
    assert "\x1b" not in page.text
    assert "\u202e" not in page.text


def test_the_command_writes_either_kind_before_anything_is_lost(
    old: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    DirectoryStore(tmp_path / "a.zarr").update({key: value for key, value in old.items() if EVIL not in key})
    assert run(["migrate", str(tmp_path / "a.zarr"), "--report", str(tmp_path / "r.txt")]) == 2
    assert ".json or .html" in capsys.readouterr().err
    with open_store(tmp_path / "a.zarr", "r") as store:
        assert "zarr.json" not in store
    args = ["migrate", str(tmp_path / "a.zarr"), "--remove-v2", "--yes", "--report", str(tmp_path / "r.json")]
    assert run(args) == 1  # one is impossible
    found = json.loads((tmp_path / "r.json").read_text())
    assert len(node(found, "f")["changes"]) == 3
    assert found["source"] == str(tmp_path / "a.zarr")


def test_the_report_goes_with_a_repository_too(old: dict[str, bytes], tmp_path: Path) -> None:
    pytest.importorskip("icechunk", reason="needs icechunk: pip install zarrstore[icechunk]")
    DirectoryStore(tmp_path / "a.zarr").update({key: value for key, value in old.items() if EVIL not in key})
    report = tmp_path / "r.json"
    args = ["migrate", str(tmp_path / "a.zarr"), str(tmp_path / "repo"), "--to", "icechunk", "--report", str(report)]
    assert run(args) == 1
    assert node(json.loads(report.read_text()), "f")["sha256"]["n_values"] == 2


def test_shards_of_structures_are_refused_by_zarr_3_1_alone_of_the_two() -> None:
    inner = {"name": "sharding_indexed", "configuration": {"codecs": [{"name": "numcodecs.lzma"}]}}
    document = {"data_type": {"name": "structured"}, "codecs": [inner]}
    assert refusals(document).keys() == {"zarr 3.1", "TensorStore", "zarrs", "zarrita", "GDAL"}
    assert refusals({"data_type": "int8", "codecs": [inner]})["zarrs"] == "it has no codec 'numcodecs.lzma'"
