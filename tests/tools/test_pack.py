"""A hierarchy as one archive, and back."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import peers
from zarrstore import DirectoryStore, open_store
from zarrstore.errors import DamagedStoreError, DestinationExistsError, LockedStoreError, StoreNotFoundError
from zarrstore.keys import RESERVED
from zarrstore.stores.zip import ZipStore, rewrite
from zarrstore.testing import FailingStore, tree
from zarrstore.tools.clean import clean
from zarrstore.tools.copy import CopyError
from zarrstore.tools.pack import pack, unpack

LEGACY = Path(__file__).parent.parent / "data" / "v2" / "legacy.zarr"


def test_a_genuine_hierarchy_goes_there_and_back(tmp_path: Path) -> None:
    n_copied, n_skipped, _ = pack(LEGACY, tmp_path / "a.zip", verify=True)
    assert (n_copied, n_skipped) == (89, 0)
    unpack(tmp_path / "a.zip", tmp_path / "back", verify=True)
    assert dict(DirectoryStore(tmp_path / "back")) == dict(DirectoryStore(LEGACY))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "back"]


def test_entries_are_in_the_order_that_a_reader_wants(tmp_path: Path) -> None:
    pack(LEGACY, tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        names = archive.namelist()
        assert archive.testzip() is None
    documents = [name for name in names if name.rsplit("/", 1)[-1] in (".zgroup", ".zattrs", ".zarray", ".zmetadata")]
    assert names[: len(documents)] == documents
    assert [name.count("/") for name in documents] == sorted(name.count("/") for name in documents)
    assert names[0] in (".zattrs", ".zgroup")


def test_other_tools_read_it(tmp_path: Path) -> None:
    peers.require_tool("unzip")
    pack(tree(), tmp_path / "a.zip")
    done = subprocess.run(["unzip", "-t", tmp_path / "a.zip"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_failure_leaves_the_old_archive_and_nothing_else(tmp_path: Path) -> None:
    pack({"a": b"old"}, tmp_path / "a.zip")
    broken = FailingStore(tree(), OSError(5, "Input/output error"), methods=["_get"], after=5)
    with pytest.raises((OSError, CopyError)):
        pack(broken, tmp_path / "a.zip", overwrite=True)
    assert dict(open_store(tmp_path / "a.zip", mode="r")) == {"a": b"old"}
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_what_is_there_is_not_replaced_unless_told(tmp_path: Path) -> None:
    pack({"a": b"1"}, tmp_path / "a.zip")
    with pytest.raises(DestinationExistsError, match="overwrite=True"):
        pack({"a": b"2"}, tmp_path / "a.zip")
    pack({"a": b"2"}, tmp_path / "a.zip", overwrite=True)
    unpack(tmp_path / "a.zip", tmp_path / "d")
    with pytest.raises(DestinationExistsError, match="if_exists"):
        unpack(tmp_path / "a.zip", tmp_path / "d")
    assert unpack(tmp_path / "a.zip", tmp_path / "d", if_exists="skip")[:2] == (0, 1)


def test_the_archive_has_the_user_s_mode(tmp_path: Path) -> None:
    pack({"a": b"1"}, tmp_path / "a.zip")
    (tmp_path / "plain").touch()
    assert (tmp_path / "a.zip").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("name", ["../../evil", "/evil", "a/../../evil", "a//evil"])
def test_an_entry_that_leads_out_is_refused_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    archive = tmp_path / "deep" / "er" / "evil.zip"
    archive.parent.mkdir(parents=True)
    with zipfile.ZipFile(archive, "w") as evil:
        evil.writestr("good/0", b"1")
        evil.writestr(name, b"evil")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DamagedStoreError, match="evil"):
        unpack(archive, tmp_path / "deep" / "er" / "out")
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == [path for path in before if path.is_file()]


def test_no_source_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFoundError):
        pack(tmp_path / "absent", tmp_path / "a.zip")
    assert list(tmp_path.iterdir()) == []


# What else may happen -------------------------------------------------------------------------------------------------


def test_an_archive_that_a_store_writes_to_is_not_replaced(tmp_path: Path) -> None:
    with ZipStore(tmp_path / "a.zip") as store:
        store["a"] = b"1"
        for _ in range(2):
            with pytest.raises(LockedStoreError, match="another writer has it open"):
                pack({"b": b"2"}, tmp_path / "a.zip", overwrite=True)
        store["c"] = b"3"
    assert dict(open_store(tmp_path / "a.zip", mode="r")) == {"a": b"1", "c": b"3"}
    assert os.listdir(tmp_path) == ["a.zip"]


class Meanwhile(dict):
    """A source during whose reading something else happens."""

    def __init__(self, items: Any, act: Callable[[], object]) -> None:
        super().__init__(items)
        self.act = act

    def __getitem__(self, key: str) -> bytes:
        act, self.act = self.act, lambda: None
        act()
        return super().__getitem__(key)


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_archive_made_meanwhile_is_not_replaced_unless_told(tmp_path: Path, overwrite: bool) -> None:
    path = tmp_path / "a.zip"
    source = Meanwhile({"a": b"ours"}, lambda: path.write_bytes(b"of another"))
    if overwrite:
        pack(source, path, overwrite=True)
        assert dict(open_store(path, mode="r")) == {"a": b"ours"}
    else:
        with pytest.raises(DestinationExistsError, match="overwrite=True"):
            pack(source, path)
        assert path.read_bytes() == b"of another"
    assert os.listdir(tmp_path) == ["a.zip"]


def test_an_archive_locked_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    opened: list[ZipStore] = []
    source = Meanwhile({"a": b"ours"}, lambda: opened.append(ZipStore(path)))
    with pytest.raises(LockedStoreError):
        pack(source, path, overwrite=True)
    opened[0]["b"] = b"theirs"
    opened[0].close()
    assert dict(open_store(path, mode="r")) == {"b": b"theirs"}
    assert os.listdir(tmp_path) == ["a.zip"]


def test_two_packs_of_one_archive_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    refused: list[Exception] = []

    def second() -> None:
        try:
            pack({"b": b"second"}, path)
        except LockedStoreError as exc:
            refused.append(exc)

    pack(Meanwhile({"a": b"first"}, second), path)
    assert len(refused) == 1
    assert dict(open_store(path, mode="r")) == {"a": b"first"}
    assert os.listdir(tmp_path) == ["a.zip"]


KILLED = """
import os, signal, sys
from zarrstore.tools.pack import pack

class Source(dict):
    def __getitem__(self, key):
        if key == "9":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(key)

pack(Source({str(i): bytes(5000) for i in range(10)}), sys.argv[1])
"""


@pytest.mark.parametrize("then", ["pack", "open", "clean"])
def test_what_a_killed_pack_left_is_swept(tmp_path: Path, then: str) -> None:
    path = tmp_path / "a.zip"
    done = subprocess.run([sys.executable, "-c", KILLED, path], capture_output=True, timeout=60)
    assert done.returncode == -9
    left = os.listdir(tmp_path)
    assert len(left) == 1
    assert left[0].startswith(RESERVED)
    if then == "pack":
        pack({"a": b"1"}, path)
    elif then == "open":
        ZipStore(path).close()
    else:
        shutil.copy(tmp_path / left[0], tmp_path / "kept")
        ZipStore(path).close()
        shutil.move(tmp_path / "kept", tmp_path / left[0])
        with open_store(path, mode="a") as store:
            shutil.copy(path, tmp_path / left[0])
            assert clean(store, dry_run=True) == left
            assert clean(store) == left
    assert os.listdir(tmp_path) == ["a.zip"]


def test_the_caller_s_store_stays_open(tmp_path: Path) -> None:
    with ZipStore(tmp_path / "source.zip") as source:
        source["a"] = b"1"
        pack(source, tmp_path / "a.zip")
        source["b"] = b"2"
        unpack(source, tmp_path / "d")
        assert dict(source) == {"a": b"1", "b": b"2"}


def test_paths_may_be_bytes(tmp_path: Path) -> None:
    pack({"a": b"1"}, os.fsencode(tmp_path / "a.zip"))
    unpack(tmp_path / "a.zip", os.fsencode(tmp_path / "d"))
    assert dict(DirectoryStore(tmp_path / "d")) == {"a": b"1"}


def test_without_hard_links_it_works_and_still_replaces_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    def no_links(*args: object, **kwargs: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / "a.zip"
    pack({"a": b"1"}, path)
    assert dict(open_store(path, mode="r")) == {"a": b"1"}
    with pytest.raises(DestinationExistsError):
        pack(Meanwhile({"a": b"2"}, lambda: None), path)
    path.unlink()
    with pytest.raises(DestinationExistsError):
        pack(Meanwhile({"a": b"2"}, lambda: path.write_bytes(b"of another")), path)
    assert path.read_bytes() == b"of another"
    assert os.listdir(tmp_path) == ["a.zip"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    pack({"a": b"1"}, tmp_path / "a.zip")
    (tmp_path / "link.zip").symlink_to("a.zip")
    pack({"a": b"2"}, tmp_path / "link.zip", overwrite=True)
    assert (tmp_path / "link.zip").is_symlink()
    assert dict(open_store(tmp_path / "a.zip", mode="r")) == {"a": b"2"}


def test_an_archive_is_durable_before_and_after_it_gets_its_name(tmp_path: Path, monkeypatch: Any) -> None:
    from zarrstore.stores.zip import rewrite

    events: list[str] = []
    replace, sync = os.replace, rewrite.sync_directory
    monkeypatch.setattr(os, "replace", lambda *names: (events.append("rename"), replace(*names))[1])
    monkeypatch.setattr(rewrite, "sync_directory", lambda path: (events.append(f"sync {path}"), sync(path))[1])
    folder = os.fsencode(tmp_path).decode()
    pack({"a": b"1"}, tmp_path / "a.zip")
    assert events[-1] == f"sync {folder}"
    events.clear()
    pack({"a": b"2"}, tmp_path / "a.zip", overwrite=True)
    assert events == ["rename", f"sync {folder}"]


def test_a_source_that_is_opened_by_name_is_closed_again(tmp_path: Path, monkeypatch: Any) -> None:
    from zarrstore import DirectoryStore as Opened

    DirectoryStore(tmp_path / "d")["a"] = b"1"
    closed: list[str] = []
    close = Opened._close
    monkeypatch.setattr(Opened, "_close", lambda self: (closed.append(self.path), close(self))[1])
    pack(tmp_path / "d", tmp_path / "a.zip")
    assert closed == [str(tmp_path / "d")]


def test_a_name_that_was_taken_is_free_again_after_a_failure_without_hard_links(
    tmp_path: Path, monkeypatch: Any
) -> None:
    def refuse(code: int) -> Callable[..., None]:
        def call(*args: Any, **options: Any) -> None:
            raise OSError(code, os.strerror(code))

        return call

    monkeypatch.setattr(os, "link", refuse(errno.EPERM))
    monkeypatch.setattr(os, "replace", refuse(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        pack({"a": b"1"}, tmp_path / "a.zip")
    assert list(tmp_path.iterdir()) == []


def test_what_a_dead_process_left_meanwhile_does_not_stop_a_compaction(tmp_path: Path) -> None:
    from zarrstore.stores.zip import rewrite

    with ZipStore(tmp_path / "a.zip", mode="w") as store:
        store.update({"a": b"1" * 100, "b": b"2"})
        del store["a"]
        Path(rewrite.temporary(str(tmp_path / "a.zip"))).write_bytes(b"left")
        store.repack()
        assert dict(store) == {"b": b"2"}
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_what_a_block_wrote_is_there_when_it_ends(tmp_path: Path) -> None:
    for n, overwrite in enumerate((False, True)):
        with ZipStore.create_atomically(tmp_path / "a.zip", overwrite=overwrite) as store:
            store["a"] = b"%d" % n
        assert dict(ZipStore(tmp_path / "a.zip", mode="r")) == {"a": b"%d" % n}
        assert os.listdir(tmp_path) == ["a.zip"]


def test_an_error_that_somebody_keeps_does_not_keep_the_archive_locked(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with pytest.raises(FileExistsError), ZipStore.create_atomically(path):
        ZipStore(path, mode="w").close()  # another makes it meanwhile
        with pytest.raises(LockedStoreError) as kept, ZipStore.create_atomically(path, overwrite=True):
            raise AssertionError
        with ZipStore(path, mode="a") as store:
            store["b"] = b"1"
        assert kept.value.__traceback__ is not None


def test_a_beginning_that_fails_leaves_no_file(tmp_path: Path, monkeypatch: Any) -> None:
    from zarrstore.stores.zip import opening

    def full(*args: Any, **options: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(opening.Writer, "create", full)
    with pytest.raises(OSError, match="No space"), ZipStore.create_atomically(tmp_path / "a.zip"):
        raise AssertionError
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("way", ["pack", "repack", "open"])
def test_a_pack_killed_between_its_two_names_hinders_nothing(tmp_path, way):
    """The archive has its name and the reserved one then: the lock of both is the same."""
    path = tmp_path / "a.zip"
    pack({"a": b"1"}, path)
    os.link(path, rewrite.temporary(str(path)))
    if way == "pack":
        pack({"a": b"1"}, path, overwrite=True)
    else:
        with ZipStore(path) as store:
            if way == "repack":
                store.repack()
    assert os.listdir(tmp_path) == ["a.zip"]
    with ZipStore(path, mode="r") as store:
        assert dict(store) == {"a": b"1"}
