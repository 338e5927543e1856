"""ZipStore when its process is killed, when system calls fail, and when the disk is full."""

from __future__ import annotations

import os
import shutil
import signal
import time
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support import crash
from tests.support.world import run_readonly
from zarrstore.errors import DamagedStoreError, LockedStoreError
from zarrstore.stores.zip import ZipStore
from zarrstore.stores.zip import format as fmt

OPENERS = "tests.support.openers"


@pytest.mark.parametrize("name", ["archive", "archive_recovered_elsewhere", "packed_archive"])
def test_a_kill_loses_nothing_that_was_set_flushed_or_not(tmp_path, name):
    found = crash.kills(f"{OPENERS}:{name}", tmp_path, rounds=20)
    assert found["bad"] == []
    assert found["acknowledged"] > 100


@pytest.mark.needs_peer("strace")
def test_any_system_call_may_fail_or_be_the_last(tmp_path):
    found = crash.failing_calls(f"{OPENERS}:archive", tmp_path)
    assert found["bad"] == []
    assert found["calls"]["pwrite64"] >= 9
    assert found["calls"]["fdatasync"] >= 4, "flush and close sync what is listed before the end that lists it"
    # Two kinds of failure harm nothing and need no error: space could be had on asking for less, and what a failed
    # write left behind was covered by the next one.
    assert [title for title in found["silent"] if not title.startswith(("fallocate", "unlink"))] == []


@pytest.mark.needs_peer("strace")
def test_any_system_call_of_a_repack_may_fail_or_be_the_last(tmp_path):
    names = "fallocate,rename,unlink,fsync,fdatasync,ftruncate,fchmod,fchown"
    found = crash.failing_calls(f"{OPENERS}:repacking", tmp_path, names)
    assert found["bad"] == []
    assert found["calls"]["rename"] == 1
    assert found["calls"]["fsync"] >= 1, "the directory in which the new archive has its name"


def test_what_was_flushed_is_whole_for_any_tool_until_the_next_write(tmp_path):
    store = ZipStore(tmp_path / "a.zip")
    store["a"] = b"1"
    store.flush()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.testzip() is None
        assert archive.read("a") == b"1"
    store["b"] = b"2" * 100_000
    with pytest.raises(DamagedStoreError, match="2 of its entries are whole"):
        ZipStore(tmp_path / "a.zip", mode="r")
    store.close()
    assert dict(ZipStore(tmp_path / "a.zip", mode="r")) == {"a": b"1", "b": b"2" * 100_000}


def _killed_after(path: Path, work) -> None:
    """Do `work(store)` in a process that is killed right after."""
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            store = ZipStore(path)
            work(store)
            os.kill(os.getpid(), signal.SIGKILL)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)


def test_recover_honours_deletes_that_were_never_flushed(tmp_path):
    path = tmp_path / "a.zip"
    items = {"a/x": b"1", "a/y": b"2", "ab/x": b"3", "b": b"4", "c": b"5", "d/e": b"6", "d": b"7"}
    with ZipStore(path) as store:
        store.update(items)

    def work(store):
        del store["b"]
        store.rmdir("a")
        store.delitems(["c", "absent"])
        store["c"] = b"again"
        store.rename("d", "moved")

    _killed_after(path, work)
    with pytest.raises(DamagedStoreError, match="4 of its entries are whole"):
        ZipStore(path)
    report = ZipStore.recover(path)
    assert (report.kept, report.damaged, report.refused, report.changed) == (4, (), (), True)
    assert dict(ZipStore(path)) == {"ab/x": b"3", "c": b"again", "moved/e": b"6", "moved": b"7"}


def test_recover_honours_a_clear(tmp_path):
    path = tmp_path / "a.zip"
    with ZipStore(path) as store:
        store.update({"a": b"1", "b/c": b"2"})

    def work(store):
        store.clear()
        store["d"] = b"3"

    _killed_after(path, work)
    ZipStore.recover(path)
    assert dict(ZipStore(path)) == {"d": b"3"}


def test_recover_believes_a_directory_more_than_a_mark_before_it(tmp_path):
    """Version 0.1.0 left a mark for all keys where its rmdir was interrupted, and listed them all at the next flush."""
    path = tmp_path / "a.zip"
    items = {f"k/{i}": b"%d" % i for i in range(100)}
    store = ZipStore(path)
    store.update(items)
    store.flush()
    writer = store._archive
    mark = fmt.tombstone(b"", 0, 0)
    writer.file.write((mark,), writer.stop)
    writer.stop += len(mark)
    store.flush()
    assert len(ZipStore(path, mode="r")) == 100
    store["later"] = b"l"
    del store["k/0"]
    shutil.copy(path, tmp_path / "killed.zip")
    assert ZipStore.recover(tmp_path / "killed.zip").kept == 100
    expected = {**items, "later": b"l"}
    del expected["k/0"]
    assert dict(ZipStore(tmp_path / "killed.zip")) == expected


def test_a_kill_right_after_opening_leaves_something_that_recovers_to_an_empty_archive(tmp_path):
    path = tmp_path / "a.zip"
    _killed_after(path, lambda store: None)
    with pytest.raises(DamagedStoreError, match="is empty"):
        ZipStore(path)
    assert ZipStore.recover(path).kept == 0
    assert dict(ZipStore(path)) == {}


def test_space_that_was_reserved_and_not_used_is_not_taken_for_damage(tmp_path):
    path = tmp_path / "a.zip"
    _killed_after(path, lambda store: store.__setitem__("a", b"1"))
    size = path.stat().st_size
    assert size > 1 << 16
    report = ZipStore.recover(path)
    assert (report.kept, report.damaged) == (1, ())
    assert path.stat().st_size < 1000
    assert dict(ZipStore(path)) == {"a": b"1"}


def test_a_value_that_is_an_archive_itself_is_not_mistaken_for_the_store(tmp_path):
    inner, path = tmp_path / "inner.zip", tmp_path / "a.zip"
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("evil", b"x")
    _killed_after(path, lambda store: store.update({"a": b"1", "archive": inner.read_bytes()}))
    os.truncate(path, path.read_bytes().rindex(b"PK\5\6") + 22)  # as if no space had been reserved
    assert zipfile.ZipFile(path).namelist() == ["evil"]
    with pytest.raises(DamagedStoreError, match="2 of its entries are whole"):
        ZipStore(path)
    assert ZipStore.recover(path).kept == 2
    assert dict(ZipStore(path)) == {"a": b"1", "archive": inner.read_bytes()}


def test_a_kill_during_repack_leaves_the_old_archive_and_nothing_beside_it(tmp_path):
    path = tmp_path / "a.zip"
    items = {f"k/{i}": os.urandom(5000) for i in range(300)}
    with ZipStore(path) as store:
        store.update(items)
        store.update(items)
    seen = 0
    for round_ in range(200):
        child = os.fork()
        if child == 0:
            with suppress(BaseException):
                with ZipStore(path, compact=False) as store:
                    while True:
                        store.repack()
            os._exit(1)
        # By what the child did, not by the clock: a busy machine may not even have begun it.
        while len(os.listdir(tmp_path)) < 2 and os.waitpid(child, os.WNOHANG) == (0, 0):
            pass
        time.sleep(0.0004 * (round_ % 15))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        seen = max(seen, len(os.listdir(tmp_path)))
        with ZipStore(path) as store:
            assert dict(store) == items
        assert os.listdir(tmp_path) == ["a.zip"]
        if round_ >= 15 and seen == 2:
            break
    assert seen == 2, "no kill came while the new archive was being written"


FULL_DISK = """
import errno, json, os, subprocess, sys
from tests.support import crash
from zarrstore.errors import DamagedStoreError, LockedStoreError
from zarrstore.stores.zip import ZipStore

os.mkdir("small")
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", "small"], check=True)
path, outcome = "small/a.zip", {"acknowledged": 0, "refused": 0, "bad": []}
store, held = ZipStore(path), {}
for version in range(1, 3000):
    key = f"k/{version}"
    new = crash.value(version, version, 37 * version % 20_000)
    try:
        store[key] = new
        held[key] = new
        outcome["acknowledged"] += 1
    except OSError as exc:
        assert exc.errno == errno.ENOSPC, exc
        outcome["refused"] += 1
    if version % 50 == 0:
        store.flush()
outcome["flushed full"] = os.statvfs("small").f_bavail
if dict(store) != held:
    outcome["bad"].append("the open store differs")
store.close()
with ZipStore(path) as store:
    if dict(store) != held:
        outcome["bad"].append("the store opened again differs")
    outcome["freed"] = 0
    for key in list(held)[:-5]:  # deleting takes space too, until a flush finds none; repacking needs it elsewhere
        try:
            del store[key]
            del held[key]
            outcome["freed"] += 1
        except OSError as exc:
            assert exc.errno == errno.ENOSPC, exc
            break
    if dict(store) != held:
        outcome["bad"].append("the store with deleted keys differs")
with ZipStore(path) as store:
    if dict(store) != held:
        outcome["bad"].append("the store differs after deleting")
print(json.dumps(outcome))
"""


def test_a_full_disk_is_an_error_of_the_set_and_loses_nothing():
    outcome = run_readonly(FULL_DISK)
    assert outcome["bad"] == []
    assert outcome["acknowledged"] > 300
    assert outcome["refused"] > 300


LITTLE_ROOM = """
import json, resource, signal
from zarrstore.stores.zip import ZipStore

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
store, held, refused = ZipStore("a.zip"), {}, 0
for i in range(300):
    try:
        store[f"k/{i}"] = bytes([i % 256]) * (i * 37 % 9000)
        held[f"k/{i}"] = bytes([i % 256]) * (i * 37 % 9000)
    except OSError:
        refused += 1
store.close()
print(json.dumps([refused, dict(ZipStore("a.zip", mode="r")) == held, len(held)]))
"""


def test_a_limit_on_the_size_of_files_is_an_error_of_the_set_and_loses_nothing():
    refused, same, held = run_readonly(LITTLE_ROOM)
    assert refused > 20
    assert held > 100
    assert same


def test_a_failed_sync_is_told_and_what_it_may_have_dropped_is_written_again(tmp_path, monkeypatch):
    from zarrstore.stores.zip import file as zip_file

    store = ZipStore(tmp_path / "a.zip")
    store["a"] = b"1"
    store.flush()
    store["b"] = b"2"
    calls: list[str] = []
    real = zip_file._sync

    def fails(fd):
        calls.append("sync")
        if len(calls) == 1:
            raise OSError(5, "Input/output error")
        real(fd)

    monkeypatch.setattr(zip_file, "_sync", fails)
    written: list[int] = []
    real_write = zip_file.OSFile.write
    monkeypatch.setattr(
        zip_file.OSFile, "write", lambda self, parts, offset: (written.append(offset), real_write(self, parts, offset))
    )
    with pytest.raises(OSError, match="Input/output"):
        store.flush()
    written.clear()
    store.flush()
    assert written[0] == store._archive._synced or min(written) < store._archive.stop
    assert len(written) == 3, "the unsynced entries, the directory, the end"
    store.close()
    assert dict(ZipStore(tmp_path / "a.zip")) == {"a": b"1", "b": b"2"}


def test_the_name_of_a_new_archive_is_made_durable_with_its_first_flush(tmp_path, monkeypatch):
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), real(fd)))
    with ZipStore(tmp_path / "a.zip") as store:
        store["a"] = b"1"
        store.flush()
        assert synced == [str(tmp_path)]
        store["b"] = b"2"
    assert synced == [str(tmp_path)]


def test_a_store_that_nobody_closed_is_flushed_when_it_goes(tmp_path):
    store = ZipStore(tmp_path / "a.zip")
    store["a"] = b"1"
    del store
    assert dict(ZipStore(tmp_path / "a.zip", mode="r")) == {"a": b"1"}


def test_a_forked_child_reads_and_writes_nothing(tmp_path):
    path = tmp_path / "a.zip"
    store = ZipStore(path)
    store.update({f"k/{i}": bytes([i]) * 2000 for i in range(50)})
    store.flush()
    store["unflushed"] = b"x"
    expected = dict(store)
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            code = 1
            with suppress(BaseException):
                for _ in range(300):
                    for key in ("k/1", "k/49", "unflushed"):
                        assert store[key] == expected[key]
                writes = (lambda: store.__setitem__("a", b"1"), lambda: store.pop("k/1"), store.clear, store.repack)
                for write in writes:
                    with pytest.raises(LockedStoreError, match="forked from its writer"):
                        write()
                store.flush()
                store.close()
                code = 0
            os._exit(code)
        children.append(child)
    for i in range(100):
        store[f"more/{i}"] = expected[f"more/{i}"] = bytes(500)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    store.close()
    assert dict(ZipStore(path)) == expected


def test_a_child_that_lives_on_does_not_hold_the_lock(tmp_path):
    store = ZipStore(tmp_path / "a.zip")
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(theirs)
        os.read(ours, 1)
        os._exit(0)
    os.close(ours)
    store["a"] = b"1"
    store.close()
    with ZipStore(tmp_path / "a.zip") as again:
        assert again["a"] == b"1"
    os.close(theirs)
    os.waitpid(child, 0)
