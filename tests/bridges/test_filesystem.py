"""The file system of fsspec over a store: fsspec's own tests, chains, and what fsspec cannot know."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

fsspec = pytest.importorskip("fsspec", reason="needs fsspec: pip install zarrstore[fsspec]")

from fsspec.tests import abstract  # noqa: E402

from tests.support.cases import in_rows  # noqa: E402
from zarrstore import DirectoryStore, LMDBStore, ReadOnlyStore, SQLiteStore, ZipStore, open_store  # noqa: E402
from zarrstore.bridges.filesystem import StoreFileSystem  # noqa: E402
from zarrstore.errors import InvalidKeyError, ReadOnlyError  # noqa: E402
from zarrstore.testing import CountingStore, tree  # noqa: E402


class StoreFixtures(abstract.AbstractFixtures):
    """What fsspec's own tests need: a file system, and a place on it."""

    @pytest.fixture(params=["mapping", "lmdb", "zip"])
    def fs(self, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
        folder = tmp_path_factory.mktemp("fs")
        fs = StoreFileSystem({} if request.param == "mapping" else str(folder / f"x.{request.param}"), mode="a")
        yield fs
        fs.close()

    @pytest.fixture
    def fs_path(self) -> str:
        return "base"

    @pytest.fixture
    def supports_empty_directories(self) -> bool:
        return False


# Each case removes what it has copied, or got or put.


class TestCopy(abstract.AbstractCopyTests, StoreFixtures):
    test_copy_glob_edge_cases = in_rows(abstract.AbstractCopyTests.test_copy_glob_edge_cases)


class TestGet(abstract.AbstractGetTests, StoreFixtures):
    test_get_glob_edge_cases = in_rows(abstract.AbstractGetTests.test_get_glob_edge_cases)


class TestPut(abstract.AbstractPutTests, StoreFixtures):
    test_put_glob_edge_cases = in_rows(abstract.AbstractPutTests.test_put_glob_edge_cases)


class TestOpen(abstract.AbstractOpenTests, StoreFixtures):
    pass


class TestPipe(abstract.AbstractPipeTests, StoreFixtures):
    pass


KINDS: dict[str, Any] = {"x.lmdb": LMDBStore, "x.zip": ZipStore, "x.sqlite": SQLiteStore, "folder": DirectoryStore}


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / request.param
    with KINDS[request.param](path) as store:
        store.update(tree(1000))
    return path


def test_every_value_and_directory_is_there(place: Path) -> None:
    fs = StoreFileSystem(place)
    items = {key: bytes(value) for key, value in tree(1000).items()}
    assert {key: fs.cat_file(key) for key in fs.find("")} == items
    with open_store(place, "r") as store:
        for path in ("", "foo", "foo/oof", "c"):
            assert [name.rpartition("/")[2] for name in fs.ls(path, detail=False)] == store.listdir(path)
    walked = {f"{root}/{name}".lstrip("/") for root, _, names in fs.walk("") for name in names}
    assert walked == set(items)
    assert fs.info("foo") == {"name": "foo", "size": 0, "type": "directory"}
    for key, value in items.items():
        assert fs.size(key) == len(value)
        assert fs.cat_file(key, 1, 3) == value[1:3]
        assert fs.cat_file(key, -2) == value[-2:]
        with fs.open(key) as file:
            file.seek(1)
            assert file.read(2) == value[1:3]
            assert file.read() == value[3:]
    fs.close()


def test_absence_and_directories_are_the_errors_that_programs_expect(place: Path) -> None:
    fs = StoreFileSystem(place)
    for read in (fs.cat_file, fs.info, fs.open, lambda path: fs.ls(path), fs.rm_file):
        for absent in ("absent", "../x", "a\\b"):
            with pytest.raises(FileNotFoundError):
                read(absent)
    for read in (fs.cat_file, fs.open, fs.rm_file):
        with pytest.raises(IsADirectoryError):
            read("foo")
    assert (fs.exists("foo"), fs.isdir("foo"), fs.isfile("foo/bar"), fs.exists("fo")) == (True, True, True, False)
    with pytest.raises(OSError, match="not empty"):
        fs.rmdir("foo")
    fs.rm("foo", recursive=True)
    assert (fs.exists("foo"), fs.exists("foobar/x"), fs.exists("foo.bar/x")) == (False, True, True)
    fs.close()


def test_a_chain_reads_and_writes_a_store_in_a_file(tmp_path: Path) -> None:
    fsspec.register_implementation("zarrstore", StoreFileSystem, clobber=True)
    for name in ("x.lmdb", "x.zip", "x.sqlite"):
        target = tmp_path / name
        with pytest.raises(FileNotFoundError):
            fsspec.open(f"zarrstore://a/b::{target}").open()
        assert not target.exists()  # to read makes nothing
        fs, path = fsspec.url_to_fs(f"zarrstore://a/b::{target}")
        with fs.open(path, "wb") as file:
            file.write(b"value")
        assert fs.cat(path) == b"value"
        fs.close()
        with fsspec.open(f"zarrstore://a/b::file://{target}") as file:
            assert file.read() == b"value"
        with open_store(target, "r") as store:
            assert dict(store) == {"a/b": b"value"}
        assert fsspec.get_mapper(f"zarrstore::{target}")["a/b"] == b"value"


def test_a_chain_reads_a_store_at_a_url(tmp_path: Path, nginx: Any) -> None:
    fsspec.register_implementation("zarrstore", StoreFileSystem, clobber=True)
    with ZipStore(tmp_path / "x.zip") as store:
        store["a/b"] = b"value"
    url = nginx(tmp_path).url
    assert fsspec.open(f"zarrstore://a/b::{url}/x.zip").open().read() == b"value"
    memory = fsspec.filesystem("memory")
    memory.pipe("/inner/x.zip", (tmp_path / "x.zip").read_bytes())
    assert fsspec.open("zarrstore://a/b::memory://inner/x.zip").open().read() == b"value"
    DirectoryStore(tmp_path / "folder")["a/b"] = b"value"
    assert fsspec.open(f"zarrstore://a/b::simplecache::file://{tmp_path}/folder").open().read() == b"value"


def test_a_file_is_one_value_whole_or_not_at_all() -> None:
    inner = CountingStore({"a": b"old"})
    fs = StoreFileSystem(inner)
    with pytest.raises(RuntimeError), fs.open("a", "wb") as file:
        file.write(b"half")
        raise RuntimeError
    assert inner["a"] == b"old"
    with fs.transaction:
        with fs.open("a", "wb") as file:
            file.write(b"new")
        assert inner["a"] == b"old"
    assert inner["a"] == b"new"
    with pytest.raises(RuntimeError), fs.transaction:
        with fs.open("a", "wb") as file:
            file.write(b"newer")
        raise RuntimeError
    with fs.open("a", "ab") as file:
        file.write(b"er")
    assert dict(inner) == {"a": b"newer"}
    for refused in ("a//b", "../x", ""):
        with pytest.raises(InvalidKeyError):
            fs.open(refused, "wb")


def test_a_part_is_read_without_the_whole(tmp_path: Path) -> None:
    inner = CountingStore(DirectoryStore(tmp_path))
    inner["a"] = bytes(range(100)) * 1000
    with StoreFileSystem(inner).open("a", block_size=10, cache_type="none") as file:
        file.seek(50_000)
        assert file.read(5) == bytes(range(5))
    assert inner.calls["_get"] == 0


def test_a_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    for fs in (StoreFileSystem(ReadOnlyStore({"a": b"1"})), StoreFileSystem({"a": b"1"}, mode="r")):
        with pytest.raises(ReadOnlyError):
            fs.pipe_file("a", b"2")
        with pytest.raises(ReadOnlyError):
            fs.rm("a")
        assert fs.cat("a") == b"1"


def test_any_program_of_fsspec_reads_an_lmdb_file_with_nothing_imported_before(tmp_path: Path) -> None:
    names = {entry.name for entry in importlib.metadata.entry_points(group="fsspec.specs")}
    if "zarrstore" not in names:
        pytest.skip("needs an installed zarrstore: pip install -e .")
    with LMDBStore(tmp_path / "x.lmdb") as store:
        store["table.json"] = b'{"a": [1, 2]}'
    script = "import fsspec, sys; print(fsspec.open('zarrstore://table.json::' + sys.argv[1], 'rt').open().read())"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(tmp_path / "x.lmdb")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == {"a": [1, 2]}
