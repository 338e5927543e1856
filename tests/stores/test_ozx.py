"""``.ozx``: OME-Zarr in one zip archive, as RFC-9 of OME-NGFF asks for it."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zarrstore import (
    DirectoryStore,
    UnshardedView,
    V2View,
    ZipStore,
    migrate_to_shards,
    open_store,
    pack,
    read_array,
    verify,
)
from zarrstore.cli.group import run
from zarrstore.errors import MetadataError
from zarrstore.metadata import v2

VALUES = np.arange(64, dtype="<u2").reshape(8, 8)


def group(**attributes: Any) -> bytes:
    return json.dumps({"zarr_format": 3, "node_type": "group", "attributes": attributes}).encode()


@pytest.fixture
def image() -> dict[str, bytes]:
    """An image of OME-Zarr 0.5: two levels in shards, and a group of labels."""
    old: dict[str, bytes] = {}
    for name in ("0", "1"):
        meta = v2.build_array(shape=(8, 8), chunks=(4, 4), dtype="<u2", compressor=None, fill_value=0)
        old[f"{name}/.zarray"] = v2.encode_array(meta)
        for i, j in np.ndindex(2, 2):
            old[f"{name}/{i}.{j}"] = VALUES[4 * i : 4 * i + 4, 4 * j : 4 * j + 4].tobytes()
    new: dict[str, bytes] = {}
    migrate_to_shards(old, new, shards=(8, 8))
    return new | {"zarr.json": group(ome={"version": "0.5"}), "labels/zarr.json": group()}


ORDER = ["zarr.json", "0/zarr.json", "1/zarr.json", "labels/zarr.json"]


def comment_of(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.comment) if archive.comment else None


def order_of(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def places_of(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return [info.filename for info in sorted(archive.infolist(), key=lambda info: info.header_offset)]


def departures(path: Path) -> list[str]:
    with open_store(path, "r") as store:
        return [problem.reason for problem in verify(store).problems if problem.kind == "departure"]


def test_pack_makes_what_the_rfc_asks_for(image: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "image.ozx"
    image["0/.zattrs"] = b"{}"  # a document of another version does not come between
    assert pack(image, path, verify=True)[0] == len(image)
    assert order_of(path)[:4] == places_of(path)[:4] == ORDER
    assert comment_of(path) == {"ome": {"version": "0.5", "zipFile": {"centralDirectory": {"jsonFirst": True}}}}
    assert b"PK\x06\x06" in path.read_bytes()[-200:]  # ZIP64
    with zipfile.ZipFile(path) as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
    assert departures(path) == []
    with open_store(path, "r") as store:
        assert dict(store) == image
        np.testing.assert_array_equal(read_array(V2View(UnshardedView(store)), "1"), VALUES)


def test_what_is_no_ome_zarr_is_not_packed_as_one(image: dict[str, bytes], tmp_path: Path) -> None:
    for other in ({".zgroup": b'{"zarr_format": 2}'}, image | {"zarr.json": group()}):
        with pytest.raises(MetadataError, match="pack it as"):
            pack(other, tmp_path / "image.ozx")
        with pytest.raises(MetadataError, match="pack it as"):
            pack(other, tmp_path / "image.ozx", dry_run=True)
        pack(other, tmp_path / "image.zip", overwrite=True)
    assert [file.name for file in tmp_path.iterdir()] == ["image.zip"]


def test_one_made_key_by_key_has_the_comment_and_its_directory_in_order(
    image: dict[str, bytes], tmp_path: Path
) -> None:
    path = tmp_path / "image.ozx"
    with open_store(path) as store:
        store.update(dict(sorted(image.items())))
    assert order_of(path)[:4] == ORDER
    assert comment_of(path)["ome"]["version"] == "0.5"
    assert departures(path) == [
        "the entries of the archive should begin with the documents, breadth first; pack it anew"
    ]
    with open_store(path) as store:
        store["2/zarr.json"] = group()
        store["zarr.json"] = group(ome={"version": "0.6"})
        assert dict(store) == image | {"2/zarr.json": group(), "zarr.json": group(ome={"version": "0.6"})}
    assert comment_of(path)["ome"]["version"] == "0.6"
    with ZipStore(path) as store:
        store.repack()
        assert departures(path) == []
    assert order_of(path)[:5] == places_of(path)[:5] == [*ORDER[:2], "1/zarr.json", "2/zarr.json", "labels/zarr.json"]


def plain_zip(path: Path, items: dict[str, bytes], comment: bytes = b"", method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, value in items.items():
            archive.writestr(name, value)
        archive.comment = comment
    return path


CLAIM = b'{"ome":{"version":"0.5","zipFile":{"centralDirectory":{"jsonFirst":true}}}}'


@pytest.mark.parametrize(
    ("change", "reasons"),
    [
        ({"sort": True, "comment": CLAIM}, ["ZIP64", "says falsely", "should begin with the documents"]),
        ({"sort": True}, ["ZIP64", "comment", "should have the documents first", "should begin with the documents"]),
        ({"comment": CLAIM.replace(b"0.5", b"0.4")}, ["ZIP64", "states version '0.4', and the root '0.5'"]),
        ({"comment": CLAIM + b"\0"}, ["ZIP64"]),  # as an earlier draft had it
        ({"comment": CLAIM, "method": zipfile.ZIP_DEFLATED}, ["ZIP64", "should be stored"]),
        ({"comment": CLAIM, "below": "image.zarr/"}, ["in the folder 'image.zarr'", "ZIP64"]),
        ({"comment": CLAIM, "root": group()}, ["states no version", "ZIP64"]),
        ({"comment": CLAIM, "more": {"labels/x.ozx": b"PK"}}, ["archive within another", "ZIP64"]),
        ({"comment": CLAIM, "name": "image.zip"}, ["should end in .ozx", "ZIP64"]),
        ({"comment": b"", "name": "image.zip"}, []),
    ],
    ids=range(10),
)
def test_verify_says_what_departs(
    change: dict[str, Any], reasons: list[str], image: dict[str, bytes], tmp_path: Path
) -> None:
    image |= {"zarr.json": change.get("root", image["zarr.json"])}
    ordered = {key: image[key] for key in [*ORDER, *sorted(image)]} | change.get("more", {})
    items = dict(sorted(ordered.items())) if "sort" in change else ordered
    path = plain_zip(
        tmp_path / change.get("name", "image.ozx"),
        {change.get("below", "") + key: value for key, value in items.items()},
        change.get("comment", b""),
        change.get("method", zipfile.ZIP_STORED),
    )
    found = departures(path)
    assert len(found) == len(reasons), found
    assert all(any(reason in text for text in found) for reason in reasons), found


def test_an_array_without_shards_departs(image: dict[str, bytes], tmp_path: Path) -> None:
    document = json.loads(image["0/zarr.json"])
    document["codecs"] = [{"name": "bytes", "configuration": {"endian": "little"}}]
    document["chunk_grid"]["configuration"]["chunk_shape"] = [4, 8]
    image |= {"0/zarr.json": json.dumps(document).encode(), "0/c/0/0": bytes(64), "0/c/1/0": bytes(64)}
    pack(image, tmp_path / "image.ozx")
    assert len(departures(tmp_path / "image.ozx")) == 1
    assert "without shards" in departures(tmp_path / "image.ozx")[0]


def test_a_comment_of_others_stays_and_one_that_claims_an_order_stays_true(
    image: dict[str, bytes], tmp_path: Path
) -> None:
    path = plain_zip(tmp_path / "a.zip", {"a": b"1"}, b"of somebody")
    with ZipStore(path) as store:
        store["b"] = b"2"
    with zipfile.ZipFile(path) as archive:
        assert archive.comment == b"of somebody"
    path = plain_zip(tmp_path / "b.zip", {key: image[key] for key in [*ORDER, *sorted(image)]}, CLAIM)
    with ZipStore(path) as store:
        store["2/zarr.json"] = group()
    assert comment_of(path) == json.loads(CLAIM)
    assert order_of(path)[:5] == [*ORDER[:3], "2/zarr.json", "labels/zarr.json"]


def test_the_command_packs_and_verifies(
    image: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    DirectoryStore(tmp_path / "image.zarr").update(image)
    path = tmp_path / "image.ozx"
    assert run(["pack", str(tmp_path / "image.zarr"), str(path)]) == 0
    assert run(["verify", str(path)]) == 0
    shutil.copy(path, tmp_path / "image.zip")
    assert run(["verify", str(tmp_path / "image.zip")]) == 1
    assert "departure: the name of the archive should end in .ozx" in capsys.readouterr().out
