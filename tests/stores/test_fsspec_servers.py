"""FSStore over real servers of files, WebDAV, FTP and SFTP, and over pyarrow's filesystems, through the whole suite."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from tests.support.servers import files
from zarrstore.errors import InvalidKeyError, StoreReadError
from zarrstore.stores.fsspec import FSStore
from zarrstore.testing import StoreConformance

fsspec_arrow = pytest.importorskip("fsspec.implementations.arrow")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def webdav(served: Path) -> Iterator[Callable[[str], Any]]:
    dav = pytest.importorskip("webdav4.fsspec", reason="needs webdav4: pip install zarrstore[test]")
    with files.webdav_server(served) as url:
        yield lambda root, **options: FSStore(root, fs=dav.WebdavFileSystem(url, skip_instance_cache=True), **options)


@pytest.fixture(scope="module")
def ftp(served: Path) -> Iterator[Callable[[str], Any]]:
    with files.ftp_server(served) as port:
        place = f"ftp://{files.USER}:{files.PASSWORD}@127.0.0.1:{port}"
        yield lambda root, **options: FSStore(f"{place}/{root}", skip_instance_cache=True, **options)


@pytest.fixture(scope="module")
def sftp(served: Path) -> Iterator[Callable[[str], Any]]:
    pytest.importorskip("paramiko", reason="needs paramiko: pip install zarrstore[test]")
    with files.sftp_server(served) as port:
        place = f"sftp://{files.USER}:{files.PASSWORD}@127.0.0.1:{port}"
        yield lambda root, **options: FSStore(f"{place}/{root}", **options)


@pytest.fixture(scope="module")
def arrow(served: Path) -> Callable[[str], Any]:
    pyarrow = pytest.importorskip("pyarrow.fs", reason="needs pyarrow: pip install zarrstore[test]")
    fs = fsspec_arrow.ArrowFSWrapper(pyarrow.LocalFileSystem())
    return lambda root, **options: FSStore(str(served / root), fs=fs, **options)


SERVERS = ("webdav", "ftp", "sftp", "arrow")
#: What the client of a protocol cannot ask for, or takes for another name.
UNSAFE = {"webdav": ("line\nbreak", "[a-z]*?/x"), "ftp": ("line\nbreak",)}


class OverAServer(StoreConformance):
    examples = 1
    server = ""
    checks_processes = False

    @pytest.fixture(autouse=True)
    def _server(self, request: pytest.FixtureRequest) -> None:
        self.open = request.getfixturevalue(self.server)
        self.root = uuid.uuid4().hex

    def make_store(self, tmp_path: Path) -> Any:
        return self.open(f"{self.root}/{tmp_path.name}")

    def reopen(self, store: Any, tmp_path: Path) -> Any:
        return self.make_store(tmp_path)

    def tree(self) -> dict[str, bytes]:
        return {key: value for key, value in super().tree().items() if key not in UNSAFE.get(self.server, ())}


@pytest.mark.slow
class TestOverWebDAV(OverAServer):
    server = "webdav"
    pickles = False  # webdav4's filesystem forgets its URL


@pytest.mark.slow
class TestOverFTP(OverAServer):
    server = "ftp"


@pytest.mark.slow
class TestOverSFTP(OverAServer):
    server = "sftp"


class TestOverPyArrow(OverAServer):
    server = "arrow"
    pickles = False  # fsspec's wrapper makes pyarrow's filesystem anew from nothing


@pytest.mark.parametrize("server", SERVERS)
def test_a_value_comes_back_and_a_directory_is_no_value(server: str, request: pytest.FixtureRequest) -> None:
    store = request.getfixturevalue(server)(uuid.uuid4().hex)
    store["new/deep/place/x"] = b"123"  # into directories that are not there
    store.update({"g/a/0.0": b"1", "g/a/0.1": b"2", "g/b": b"3"})
    expected = dict(store.items())
    for name in ("g", "g/a", "new/deep", "absent"):
        assert name not in store
        with pytest.raises(KeyError):
            del store[name]
    store.delitems(["g/a", "g", "new", "absent"])
    assert dict(store.items()) == expected
    assert (store.getsuffix("new/deep/place/x", 2), store.getrange("new/deep/place/x", 1, 9)) == (b"23", b"23")


@pytest.mark.parametrize("server", SERVERS)
def test_what_is_deleted_leaves_no_directory_that_is_listed(
    server: str, request: pytest.FixtureRequest, served: Path
) -> None:
    root = uuid.uuid4().hex
    store = request.getfixturevalue(server)(root)
    store.update({"g/a/b/c": b"1", "g/x": b"2", "h/y": b"3"})
    del store["g/a/b/c"]
    assert (store.listdir("g"), store.listdir()) == (["x"], ["g", "h"])
    store.rmdir("g")
    assert (store.listdir(), os.listdir(served / root)) == (["h"], ["h"])
    store.rename("h", "i")
    assert (list(store), os.listdir(served / root)) == (["i/y"], ["i"])


@pytest.mark.parametrize("server", SERVERS)
def test_a_place_far_deeper_than_what_is_there_is_empty_and_the_connection_stays_in_step(
    server: str, request: pytest.FixtureRequest
) -> None:
    """fsspec's FTP asks for each place above in turn, in a recursion whose end leaves an answer unread."""
    store = request.getfixturevalue(server)(uuid.uuid4().hex)
    store["d/d/x"] = b"1"
    deep = "/".join("d" * 1900)
    assert (store.listdir(deep), store.getsize(deep), list(store.keys_below(deep))) == ([], 0, [])
    store.rmdir(deep)
    with pytest.raises(KeyError):
        store.rename(deep, "y")
    assert dict(store) == {"d/d/x": b"1"}


@pytest.mark.parametrize("server", SERVERS)
def test_a_name_longer_than_any_file_system_keeps_is_absent_however_the_server_says_so(
    server: str, request: pytest.FixtureRequest
) -> None:
    """SFTP has no code for it: asyncssh answers with a text, OpenSSH with "Failure"."""
    store = request.getfixturevalue(server)(uuid.uuid4().hex)
    store["a"] = b"1"
    for key in ("x" * 300, f"a/{'x' * 300}", f"{'x' * 300}/a"):
        assert (store.getsize(key), store.listdir(key), key in store, store.get(key)) == (0, [], False, None)
        store.rmdir(key)
    assert dict(store) == {"a": b"1"}


def test_a_failed_listing_is_absence_only_if_the_name_cannot_be_listed_either(arrow: Any, monkeypatch: Any) -> None:
    """Servers leave names with a leading dot out of a listing, and a connection may break once."""
    store = arrow(uuid.uuid4().hex)
    store[".hidden/x/y"] = b"1"
    fs, ls, failures = store.fs, store.fs.ls, [OSError("broken")]

    def partial(path: str, detail: bool = True, **options: Any) -> Any:
        if path == store._path(".hidden/x") and failures:
            raise failures.pop()
        return [info for info in ls(path, detail=True, **options) if not info["name"].endswith(".hidden")]

    monkeypatch.setattr(fs, "ls", partial)
    with pytest.raises(StoreReadError):
        store.listdir(".hidden/x")
    assert (store.listdir(".hidden/x"), store.listdir(".hidden/z")) == (["y"], [])


@pytest.mark.parametrize("server", UNSAFE)
def test_a_name_that_the_client_would_take_for_another_is_refused(server: str, request: pytest.FixtureRequest) -> None:
    store = request.getfixturevalue(server)(uuid.uuid4().hex)
    names = {
        "webdav": ("a?b", "a#b", "a%20b", "a%2Fb", "a /x", "a\u00a0", "a\uffff"),
        "ftp": (" a", "a ", "d /x", "a\nDELE x"),
    }[server]
    store["a"] = b"1"
    for name in names:
        with pytest.raises(InvalidKeyError, match="does not keep it apart"):
            store[name] = b"2"
        assert (store.get(name), name in store) == (None, False)
        store.rmdir(name)  # nothing is there, which is no error
        assert (store.listdir(name), store.getsize(name)) == ([], 0)
        with pytest.raises(KeyError):
            del store[name]
    assert dict(store) == {"a": b"1"}


def test_what_others_write_into_a_directory_that_is_removed_stays(arrow: Any, served: Path) -> None:
    """pyarrow's rmdir erases whatever is below."""
    root = uuid.uuid4().hex
    store = arrow(root)
    store.update({"d/x": b"1", "d/y": b"2"})
    (served / root / "d" / "more").mkdir()
    (served / root / "d" / "more" / "z").write_bytes(b"3")
    del store["d/x"]
    del store["d/y"]
    assert dict(store) == {"d/more/z": b"3"}
    assert not store._remove_empty(store._path("d"))
    assert dict(store) == {"d/more/z": b"3"}


@pytest.mark.parametrize("make", [lambda: fsspec.filesystem("memory", skip_instance_cache=True)])
def test_the_callers_own_filesystem_forgets_what_is_written(make: Any) -> None:
    fs = make()
    root = f"/{uuid.uuid4().hex}"
    store = FSStore(root, fs=fs)
    store["a/x"] = b"1"
    assert fs.exists(f"{root}/a/x")
    del store["a/x"]
    assert not fs.exists(f"{root}/a/x")


def test_passwords_are_not_shown(ftp: Any, sftp: Any) -> None:
    for opened in (ftp, sftp):
        store = opened("x")
        assert files.PASSWORD not in repr(store)
        assert f"{files.USER}:***@" in repr(store)
