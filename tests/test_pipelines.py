"""URL pipelines: the examples of the draft of ZEP 8, each over what it names, and TensorStore as the judge."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zarrstore import DirectoryStore, ZipStore, init_array, init_group, migrate_2to3, open_store, read_array
from zarrstore.cli.group import run
from zarrstore.errors import DestinationExistsError, ReadOnlyError, StoreNotFoundError, UnsupportedOperation

VALUES = np.arange(6, dtype="<i2")


def fill(store: Any, path: str = "") -> None:
    """Put an array at ``path/to/array`` below a path."""
    at = f"{path}/path/to/array".lstrip("/")
    init_array(store, shape=6, chunks=3, dtype="<i2", compressor=None, path=at)
    store[f"{at}/0"], store[f"{at}/1"] = VALUES[:3].tobytes(), VALUES[3:].tobytes()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a hierarchy of both versions, a zip of one, and a zip within a zip."""
    folder = DirectoryStore(tmp_path / "both.zarr")
    fill(folder)
    migrate_2to3(folder)
    with ZipStore(tmp_path / "nested.zip", mode="w") as nested:
        fill(nested, "inner")
    with ZipStore(tmp_path / "file.zip", mode="w") as archive:
        fill(archive)
        migrate_2to3(archive)
        archive["path/to/nested.zip"] = (tmp_path / "nested.zip").read_bytes()
    return tmp_path


#: What the draft and its discussion write, with a place on this machine for the bucket.
EXAMPLES = [
    "{at}/both.zarr/path/to/array/|zarr2:",
    "{at}/both.zarr/path/to/array/|zarr3:",
    "{at}/both.zarr/|zarr2:path/to/array/",
    "{at}/both.zarr/path/|zarr3:to/array/",
    "{at}/file.zip|zip:path/to/array/|zarr2:",
    "{at}/file.zip|zip:path/to/array/|zarr3:",
    "{at}/file.zip|zip:|zarr3:path/to/array",
    "{at}/file.zip|zip:path/to/nested.zip|zip:inner/path/to/array/|zarr2:",
    "{at}/file.zip|ZIP:path%2Fto|zarr2:array",
]


@pytest.mark.parametrize("example", EXAMPLES)
@pytest.mark.parametrize("scheme", ["file:", "file://", ""])
def test_an_example_of_the_draft_opens_the_array(example: str, scheme: str, place: Path) -> None:
    with open_store(scheme + example.format(at=place), mode="r") as store:
        assert store["0"] == VALUES[:3].tobytes()
        if ".zarray" in store:
            assert read_array(store).tolist() == VALUES.tolist()
        assert not store.capabilities.writable


@pytest.mark.parametrize("example", EXAMPLES[:7])
def test_tensorstore_reads_the_same_by_the_same_url(example: str, place: Path) -> None:
    tensorstore = pytest.importorskip("tensorstore", reason="needs tensorstore: pip install zarrstore[test]")
    url = "file://" + example.format(at=place)
    if "zarr2" in url:
        assert tensorstore.open(url, read=True).result().read().result().tolist() == VALUES.tolist()
    assert open_store(url, mode="r")["1"] == VALUES[3:].tobytes()


def test_over_the_web(place: Path, http_server: Callable[[Path], str]) -> None:
    base = http_server(place)
    for example in EXAMPLES[:8]:
        with open_store(example.format(at=base), mode="r") as store:
            assert store["0"] == VALUES[:3].tobytes()


def test_on_s3(place: Path, s3_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = s3_server.make_bucket()
    try:
        client = s3_server.client()
        client.put_object(Bucket=bucket, Key="a/x.zip", Body=(place / "file.zip").read_bytes())
        client.close()
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret)
        host = s3_server.endpoint.partition("://")[2]
        for url, options in (
            (f"s3://{bucket}/a/x.zip|zip:path/to/array", s3_server.storage_options()),
            (f"s3+http://{host}/{bucket}/a/x.zip|zip:|lru:1MB|zarr2:path/to/array", None),
        ):
            with open_store(url, mode="r", storage_options=options) as store:
                assert store["0"] == VALUES[:3].tobytes()
    finally:
        s3_server.drop_bucket(bucket)


def test_n5(tmp_path: Path) -> None:
    with open_store(tmp_path / "x.n5", mode="w") as store:
        init_group(store)
        fill(store)
    for url in ("{at}/x.n5|n5:path/to/array", "{at}/x.n5/path|n5:to/array", "file://{at}/x.n5/path/to/array/|n5:"):
        with open_store(url.format(at=tmp_path), mode="r") as store:
            assert read_array(store).tolist() == VALUES.tolist()


def test_icechunk(tmp_path: Path) -> None:
    pytest.importorskip("icechunk", reason="needs icechunk: pip install zarrstore[icechunk]")
    source: dict[str, bytes] = {}
    fill(source)
    with open_store(f"icechunk://{tmp_path}/repo", mode="a") as repository:
        repository.update(source)
    for url in ("{at}/repo|icechunk:path/to/array", "file://{at}/repo/|icechunk:@branch.main/path|zarr3:to/array"):
        with open_store(url.format(at=tmp_path), mode="r") as store:
            assert read_array(store).tolist() == VALUES.tolist()


def test_memory_is_a_new_store_and_what_is_written_goes_below_the_path() -> None:
    store = open_store("memory:|zarr2:group/array")
    init_array(store, shape=3)
    assert ".zarray" in store


def test_readonly_and_lru(place: Path) -> None:
    with open_store(f"{place}/both.zarr|readonly:path|lru:1MB") as store:
        assert store["to/array/0"] == VALUES[:3].tobytes()
        with pytest.raises(ReadOnlyError):
            store["x"] = b""


def test_what_is_erased_lies_below_the_path_only(place: Path) -> None:
    with open_store(f"{place}/both.zarr|zarr2:path/to/array", mode="w") as store:
        assert list(store) == []
    assert ".zgroup" in DirectoryStore(place / "both.zarr")
    with pytest.raises(DestinationExistsError):
        open_store(f"{place}/both.zarr|zarr2:path", mode="w-")
    with open_store(f"{place}/file.zip|zip:path/to/array", mode="a") as store:
        store["1"] = b"new"
    assert ZipStore(place / "file.zip", mode="r")["path/to/array/1"] == b"new"


@pytest.mark.parametrize(
    ("url", "mode", "error", "words"),
    [
        ("{at}/both.zarr|ocdbt:x", "r", ValueError, "there is no adapter 'ocdbt'; there are icechunk"),
        ("{at}/both.zarr|zarr2:|x", "r", ValueError, "'x' is no adapter, which has a colon"),
        ("{at}/none.zip|zip:", "r", StoreNotFoundError, "none.zip"),
        ("{at}/both.zarr|zarr2:|zip:", "r", StoreNotFoundError, "name its key"),
        ("{at}/file.zip|zip:path/to/nested.zip|zip:", "r+", UnsupportedOperation, "change a local copy"),
        ("{at}/old|zarr3:", "r", StoreNotFoundError, "is version 2: |zarr2:"),
    ],
)
def test_what_cannot_be_opened_is_named(url: str, mode: str, error: Any, words: str, place: Path) -> None:
    init_group(DirectoryStore(place / "old"))
    with pytest.raises(error) as caught:
        open_store(url.format(at=place), mode=mode)
    assert words in str(caught.value)


def test_a_path_that_is_there_is_no_pipeline(tmp_path: Path) -> None:
    DirectoryStore(tmp_path / "odd|zip:name")["x"] = b"1"
    assert open_store(tmp_path / "odd|zip:name", mode="r")["x"] == b"1"
    assert open_store(str(tmp_path / "odd|zip:name"), mode="r")["x"] == b"1"


def test_the_command_line_takes_pipelines(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ls", f"{place}/file.zip|zip:path/to/array"]) == 0
    assert capsys.readouterr().out.split() == [".zarray", "zarr.json", "0", "1"]
    assert run(["copy", f"{place}/file.zip|zip:path/to", f"{place}/new|zarr2:sub", "-q"]) == 0
    assert "sub/array/0" in DirectoryStore(place / "new")


@pytest.mark.parametrize("adapter", ["zip:nowhere", "zip:|zarr2:nowhere", "zip:a/0", "zip:|readonly:nowhere"])
def test_a_path_at_which_nothing_is_is_not_opened_as_empty(tmp_path: Path, adapter: str) -> None:
    with ZipStore(tmp_path / "x.zip", mode="w") as archive:
        archive.update({".zgroup": b'{"zarr_format": 2}', "a/0": b"1"})
    target = f"{tmp_path / 'x.zip'}|{adapter}"
    with pytest.raises(StoreNotFoundError) as caught:
        open_store(target, mode="r")
    assert repr(target) in str(caught.value)
    with open_store(f"{tmp_path / 'x.zip'}|zip:a", mode="r") as store:
        assert dict(store) == {"0": b"1"}


def test_a_pipeline_without_a_place_is_refused() -> None:
    with pytest.raises(ValueError, match=r"nothing stands before the first \|"):
        open_store("|zip:", mode="r")
