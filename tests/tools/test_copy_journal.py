"""Journals: what they are bound to, what they never do, and what a copy that is continued does again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

import pytest

from tests.support.cases import each_of
from zarrstore import CopyError, DictStore, DirectoryStore, PrefixStore, ReadOnlyStore, copy_store
from zarrstore.errors import DamagedStoreError, DestinationExistsError, LockedStoreError
from zarrstore.testing import FailingStore, Recorder
from zarrstore.tools import copying
from zarrstore.tools.journal import Journal, place_name

ROOT = Path(__file__).parent.parent.parent


class Stop(BaseException):
    """An interruption."""


class Stopping(DictStore):
    """A destination that is interrupted before it takes one key."""

    def __init__(self, at: str, held: dict[str, bytes] | None = None) -> None:
        super().__init__(held or {})
        self.at = at
        self.sets: list[str] = []

    def _set(self, key: str, value: bytes) -> None:
        if key == self.at:
            raise Stop
        self.sets.append(key)
        super()._set(key, value)


@pytest.fixture
def source(tmp_path: Path) -> DirectoryStore:
    store = DirectoryStore(tmp_path / "source")
    store.update({f"a/{n:04d}": f"value {n}".encode() for n in range(1200)})
    store["a/.zarray"] = b"{}"
    return store


def interrupted(source: Any, tmp_path: Path, at: str = "a/1100", **options: Any) -> Stopping:
    """Copy until a key is reached; the journal then names the first two batches."""
    dest = Stopping(at, options.pop("held", None))
    with pytest.raises(Stop):
        copy_store(source, dest, resume=tmp_path / "journal", **options)
    dest.at, dest.sets = "", []
    return dest


def test_what_the_journal_names_is_not_read_again_and_the_journal_goes_when_all_is_done(
    source: DirectoryStore, tmp_path: Path
) -> None:
    read: list[str] = []

    class Reading(DirectoryStore):
        def _get(self, key: str) -> bytes:
            read.append(key)
            return super()._get(key)

    watched = Reading(source.path)
    dest = interrupted(watched, tmp_path)
    read.clear()
    result = copy_store(watched, dest, resume=tmp_path / "journal")
    assert result[:2] == (201, 1000)
    assert sorted(read) == sorted(dest.sets) == ["a/.zarray", *(f"a/{n:04d}" for n in range(1000, 1200))]
    assert dict(dest) == dict(source)
    assert not (tmp_path / "journal").exists()


def test_a_value_that_changed_at_the_source_is_copied_again(source: DirectoryStore, tmp_path: Path) -> None:
    dest = interrupted(source, tmp_path)
    source["a/0007"] = b"VALUE 7"  # as long as the one before
    assert copy_store(source, dest, resume=tmp_path / "journal").n_skipped == 999
    assert dict(dest) == dict(source)


def test_without_identities_values_are_read_and_compared_and_only_those_that_differ_are_written(tmp_path: Path) -> None:
    values = {f"a/{n:04d}": b"value" for n in range(1200)}
    dest = interrupted(values, tmp_path)
    values["a/0007"] = b"VALUE"
    assert copy_store(values, dest, resume=tmp_path / "journal")[:2] == (201, 999)
    assert sorted(dest.sets) == ["a/0007", *(f"a/{n:04d}" for n in range(1000, 1200))]
    assert dict(dest) == values


def test_a_recorded_value_that_cannot_be_read_any_more_is_an_error(tmp_path: Path) -> None:
    class Source(DictStore):
        bad = ""

        def _get(self, key: str) -> bytes:
            if key == self.bad:
                raise OSError(5, "Input/output error")
            return super()._get(key)

    source = Source({f"a/{n:04d}": b"value" for n in range(1200)})
    dest = interrupted(source, tmp_path)
    source.bad = "a/0007"
    result = copy_store(source, dest, resume=tmp_path / "journal", errors="collect")
    assert set(result.errors) == {"a/0007"}


def test_a_kept_key_that_left_the_source_is_not_copied(tmp_path: Path) -> None:
    values = {f"a/{n:04d}": b"value" for n in range(1200)}
    dest = interrupted(values, tmp_path, if_exists="skip", held={"a/0007": b"precious", "a/0008": b"precious"})
    del values["a/0007"]
    copy_store(values, dest, resume=tmp_path / "journal", if_exists="skip")
    assert dict(dest) == {**values, "a/0007": b"precious", "a/0008": b"precious"}


def test_a_recorded_key_that_is_no_longer_at_the_destination_is_copied_again(
    source: DirectoryStore, tmp_path: Path
) -> None:
    dest = interrupted(source, tmp_path)
    del dest["a/0003"]
    copy_store(source, dest, resume=tmp_path / "journal")
    assert dict(dest) == dict(source)


def test_a_copy_that_was_refused_is_refused_the_second_time_too(source: DirectoryStore, tmp_path: Path) -> None:
    dest = {"a/0007": b"precious"}
    for _ in range(3):
        with pytest.raises(DestinationExistsError):
            copy_store(source, dest, resume=tmp_path / "journal")
        assert dest == {"a/0007": b"precious"}
        assert not (tmp_path / "journal").exists()


def test_with_skip_a_continued_copy_keeps_what_was_there_before_the_first_run_and_nothing_else(
    source: DirectoryStore, tmp_path: Path
) -> None:
    dest = interrupted(source, tmp_path, if_exists="skip", held={"a/0007": b"precious", "a/1150": b"precious too"})
    dest["a/1050"] = b"half of a val"  # written by the run that was interrupted, without a record
    del source["a/0002"], source["a/0003"]
    dest["of somebody else"] = b""
    result = copy_store(source, dest, resume=tmp_path / "journal", if_exists="skip")
    assert result.n_copied + result.n_skipped == len(source)
    assert result.n_skipped >= 998
    for key in ("a/0002", "a/0003", "of somebody else"):
        del dest[key]
    assert dict(dest) == {**dict(source), "a/0007": b"precious", "a/1150": b"precious too"}


@pytest.mark.parametrize(
    "options",
    [
        {"source_path": "a"},
        {"dest_path": "b"},
        {"excludes": "0007"},
        {"excludes": "0007", "includes": "a"},
        {"flags": 2},
        {"if_exists": "replace"},
        {"verify": True},
        {"documents_first": True},
    ],
    ids=repr,
)
def test_the_journal_of_a_copy_with_other_options_is_refused(
    options: dict[str, Any], source: DirectoryStore, tmp_path: Path
) -> None:
    dest = interrupted(source, tmp_path)
    before = dict(dest), (tmp_path / "journal").read_bytes()
    with pytest.raises(DamagedStoreError, match="journal of another copy: its "):
        copy_store(source, dest, resume=tmp_path / "journal", **options)
    assert (dict(dest), (tmp_path / "journal").read_bytes()) == before


def test_the_journal_of_another_source_or_destination_is_refused(source: DirectoryStore, tmp_path: Path) -> None:
    dest = interrupted(source, tmp_path)
    other = DirectoryStore(tmp_path / "other")
    other.update(source)
    with pytest.raises(DamagedStoreError, match=r"its source is 'DirectoryStore .*source', and here it is"):
        copy_store(other, dest, resume=tmp_path / "journal")
    with pytest.raises(DamagedStoreError, match="its destination is"):
        copy_store(source, DirectoryStore(tmp_path / "elsewhere"), resume=tmp_path / "journal")
    assert not (tmp_path / "elsewhere").exists()


def test_a_store_has_one_name_in_journals_however_it_was_opened(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    assert place_name(store) == place_name(ReadOnlyStore(store)) == f"DirectoryStore {tmp_path}"
    assert place_name(PrefixStore(store, "a")) != place_name(PrefixStore(store, "b")) != place_name(store)
    assert place_name(DictStore({"a": b"1"})) == place_name(DictStore())


def test_two_copies_never_use_one_journal_at_a_time(source: DirectoryStore, tmp_path: Path) -> None:
    with Journal(tmp_path / "journal", {}) as journal:
        journal.begin([])
        with pytest.raises(LockedStoreError, match="this process"):
            copy_store(source, {}, resume=tmp_path / "journal")
        script = "import sys; from zarrstore import copy_store; copy_store({'a': b''}, {}, resume=sys.argv[1])"
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / "journal")], cwd=ROOT, capture_output=True, text=True
        )
        assert "LockedStoreError" in done.stderr
    copy_store(source, {}, resume=tmp_path / "other")


def test_a_forked_child_does_not_keep_the_lock_of_a_process_that_died(tmp_path: Path) -> None:
    script = (
        "import os, sys, time\n"
        "from zarrstore.tools.journal import Journal\n"
        "journal = Journal(sys.argv[1], {})\n"
        "journal.begin([])\n"
        "if os.fork() == 0:\n"
        "    print(os.getpid(), flush=True); time.sleep(600)\n"
        "else:\n"
        "    os._exit(1)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "journal")], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    grandchild = int(child.stdout.readline())
    child.wait()
    try:
        with Journal(tmp_path / "journal", {}) as journal:
            assert journal.resumed
    finally:
        os.kill(grandchild, signal.SIGKILL)
        child.stdout.close()


def test_a_key_that_failed_is_not_recorded_and_the_journal_stays(tmp_path: Path) -> None:
    class Lossy(DictStore):
        lossy = True

        def _set(self, key: str, value: bytes) -> None:
            if key == "a/1" and self.lossy:
                raise OSError(5, "Input/output error")
            super()._set(key, value[:-1] if key == "a/2" and self.lossy else value)

    values = {f"a/{n}": b"value" for n in range(4)}
    dest = Lossy()
    with pytest.raises(CopyError) as caught:
        copy_store(values, dest, resume=tmp_path / "journal", verify=True)
    assert set(caught.value.errors) == {"a/1", "a/2"}
    dest.lossy = False
    assert copy_store(values, dest, resume=tmp_path / "journal", verify=True)[:2] == (2, 2)
    assert dict(dest) == values
    assert not (tmp_path / "journal").exists()


def test_the_journal_is_never_ahead_of_the_destination_s_flush(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "_CHECKPOINT", -1.0)  # after every batch
    recorder = Recorder()
    record = Journal.record

    def recorded(self: Journal, versions: Any) -> None:
        pairs = list(versions)
        begun = recorder.begin()
        record(self, pairs)
        for key, _ in pairs:
            recorder.record("journal", "record", key, begun)

    monkeypatch.setattr(Journal, "record", recorded)
    dest = recorder.watch({}, "dest")
    values = {f"a/{n:04d}": b"v" for n in range(1200)}
    copy_store(values, dest, resume=tmp_path / "journal")
    unflushed: set[str] = set()
    written: set[str] = set()
    recorded_keys = 0
    for store, action, key in recorder.order():
        if (store, action) == ("dest", "set"):
            unflushed.add(key)
        elif (store, action) == ("dest", "flush"):
            written |= unflushed
            unflushed.clear()
        elif action == "record":
            assert key in written, f"{key} was recorded before it was flushed"
            recorded_keys += 1
    assert recorded_keys == 1200
    assert next(event for event in recorder.order() if event[0] == "journal") == ("journal", "record", "a/0000")


def test_an_interruption_records_what_was_written_until_then(tmp_path: Path) -> None:
    values = {f"a/{n:04d}": b"v" for n in range(1200)}
    dest = interrupted(values, tmp_path)  # long before the second of a checkpoint is over
    with Journal(tmp_path / "journal", _job_of(tmp_path)) as journal:
        assert len(list(journal.done())) == 1000
    assert len(dest) >= 1000


def _job_of(tmp_path: Path) -> dict[str, Any]:
    import json

    header = json.loads((tmp_path / "journal").read_bytes().splitlines()[0].partition(b" ")[2])
    del header["zarrstore journal"]
    return header  # type: ignore[no-any-return]


# The file -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    with Journal(tmp_path / "journal", {"from": "a"}) as journal:
        journal.begin(["kept"])
        journal.record([("one", "1"), ("two", "2")])
        journal.record([("three", "3")])
    return (tmp_path / "journal").read_bytes()


def test_a_torn_line_is_cut_off_wherever_it_is_torn(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "journal"
    last = whole.rindex(b"\n", 0, len(whole) - 1) + 1
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        with Journal(path, {"from": "a"}) as journal:
            wanted = [("one", "1"), ("two", "2")] if cut >= last else []
            assert list(journal.done()) == wanted
            if not journal.resumed:
                journal.begin(["kept"])  # what a crash left of a journal that was not begun goes
            else:
                journal.go_on()
            assert journal.resumed or not list(journal.kept())
            journal.record([("four", "4")])
        with Journal(path, {"from": "a"}) as journal:
            assert list(journal.done()) == sorted([*wanted, ("four", "4")])
            assert list(journal.kept()) == ["kept"]


def test_a_line_full_of_zeros_at_the_end_is_cut_off_too(whole: bytes, tmp_path: Path) -> None:
    (tmp_path / "journal").write_bytes(whole + bytes(4096))
    with Journal(tmp_path / "journal", {"from": "a"}) as journal:
        assert len(list(journal.done())) == 3


@pytest.mark.parametrize("at", [0, 100, -80])
def test_a_damaged_line_that_others_follow_is_refused(whole: bytes, tmp_path: Path, at: int) -> None:
    damaged = bytearray(whole)
    damaged[at] ^= 1
    (tmp_path / "journal").write_bytes(damaged)
    with pytest.raises(DamagedStoreError, match=r"is no journal|is damaged in line"):
        Journal(tmp_path / "journal", {"from": "a"})
    assert (tmp_path / "journal").read_bytes() == damaged


@pytest.mark.parametrize("content", [b"not a journal at all", b"precious\n", b"0\n", b"\x00" * 10])
def test_a_file_that_is_no_journal_is_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "journal").write_bytes(content)
    with pytest.raises(DamagedStoreError, match="is no journal"):
        copy_store({"a": b""}, {}, resume=tmp_path / "journal")
    assert (tmp_path / "journal").read_bytes() == content


def test_the_later_of_two_records_of_a_key_counts(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal", {}) as journal:
        journal.begin([])
        journal.record([("a", "old"), ("b", "1")])
        journal.record([("a", "new")])
    with Journal(tmp_path / "journal", {}) as journal:
        assert list(journal.done()) == [("a", "new"), ("b", "1")]


def test_a_torn_line_does_not_stop_the_run_after_the_next(tmp_path: Path) -> None:
    class Refusing(DictStore):
        refused = frozenset({"a/1", "a/2"})

        def _set(self, key: str, value: bytes) -> None:
            if key in self.refused:
                raise OSError(5, "Input/output error")
            super()._set(key, value)

    values, dest = {f"a/{n}": b"value" for n in range(4)}, Refusing()
    copy_store(values, dest, resume=tmp_path / "journal", errors="collect")
    with open(tmp_path / "journal", "ab") as file:
        file.write(b'{"done": [["a/')
    dest.refused = frozenset({"a/1"})
    copy_store(values, dest, resume=tmp_path / "journal", errors="collect")
    dest.refused = frozenset()
    result = copy_store(values, dest, resume=tmp_path / "journal")
    assert (result.n_copied, result.n_skipped, dict(dest)) == (1, 3, values)


def test_a_dry_run_makes_no_journal(tmp_path: Path) -> None:
    copy_store({"a": b""}, {}, resume=tmp_path / "journal", dry_run=True)
    assert list(tmp_path.iterdir()) == []


KILLED = """
import sys
from zarrstore import DirectoryStore, copy_store
from zarrstore.tools import copying

copying._CHECKPOINT = 0  # each batch is recorded, not one a second

def slowly(progress):
    print(progress.done, flush=True)
    sys.stdin.readline()  # killed here, or told to go on

copy_store(DirectoryStore(sys.argv[1]), DirectoryStore(sys.argv[2]), resume=sys.argv[3], progress=slowly)
"""


def test_killed_at_any_moment_it_resumes_to_the_same_end(tmp_path: Path) -> None:
    source = DirectoryStore(tmp_path / "s")
    source.update({f"a/{n}": str(n).encode() * 10 for n in range(3000)})
    source["a/.zarray"] = b"{}"
    script = [sys.executable, "-c", KILLED, str(tmp_path / "s"), str(tmp_path / "d"), str(tmp_path / "journal")]
    child = subprocess.Popen(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert child.stdin is not None
    assert child.stdout is not None
    for line in child.stdout:
        if line.strip().isdigit() and int(line) >= 2000:
            break
        child.stdin.write("\n")
        child.stdin.flush()
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdin.close()
    child.stdout.close()
    dest = DirectoryStore(tmp_path / "d")
    assert "a/.zarray" not in dest
    result = copy_store(source, dest, resume=tmp_path / "journal")
    assert result.n_copied == 3001 - result.n_skipped
    assert result.n_skipped >= 1000
    assert dict(dest) == dict(source)


def test_a_record_is_durable_when_it_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    genuine = os.fsync

    def recording(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        genuine(descriptor)

    monkeypatch.setattr(os, "fsync", recording)
    with Journal(tmp_path / "journal", {}) as journal:
        journal.begin([])
        assert {str(tmp_path / "journal"), str(tmp_path)} <= set(synced)
        synced.clear()
        journal.record([("a", "1")])
        assert synced == [str(tmp_path / "journal")]


def test_a_journal_that_its_owner_deletes_while_it_is_opened_here_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zarrstore.tools import journal as module

    genuine, calls = module._lock, []

    def lock(file: Any, path: Path) -> None:
        genuine(file, path)
        calls.append(path)
        if len(calls) <= 2:
            path.unlink()
        if len(calls) == 2:
            path.write_bytes(b"")  # another process has made a new one

    monkeypatch.setattr(module, "_lock", lock)
    with Journal(tmp_path / "journal", {}) as journal:
        journal.begin([])
        assert (tmp_path / "journal").stat().st_size > 0
    assert len(calls) == 3


def test_a_journal_that_somebody_deleted_meanwhile_is_no_error(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal", {}) as journal:
        journal.begin([])
        (tmp_path / "journal").unlink()
        journal.remove()


def test_a_key_whose_write_failed_is_not_recorded(source: Any, tmp_path: Path) -> None:
    dest = DictStore()
    failing = FailingStore(dest, OSError(5, "Input/output error"), methods=["_set", "_set_many"], keys=["a/0007"])
    dest["a/0007"] = b"old"  # what is recorded and there would not be copied again
    result = copy_store(source, failing, resume=tmp_path / "journal", if_exists="replace", errors="collect")
    assert set(result.errors) == {"a/0007", "a/.zarray"}
    assert b"a/0007" not in (tmp_path / "journal").read_bytes()
    failing.methods = frozenset()
    assert copy_store(source, failing, resume=tmp_path / "journal", if_exists="replace")[:2] == (2, 1199)
    assert dict(dest) == dict(source)


@each_of(
    "text",
    [
        b'{"done":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"no json",
        b'{"done":[["a/1",' + b"9" * 5000 + b"]]}",
        b'{"done":[["\xff","v"]]}',
        b'{"done":5}',
        b'{"done":null}',
        b'{"done":["ab"]}',
        b'{"done":[["a/1","b","c"]]}',
        b'{"done":[[5,"v"],["a/1","v"]]}',
        b'{"done":[["a/1",NaN]]}',
        b'{"done":[["../../x","v"]]}',
        b'{"kept":5}',
        b'{"kept":[5,null,"x"]}',
        b'{"kept":["../x"]}',
        b"[1]",
    ],
)
def test_a_line_whose_checksum_is_right_and_that_is_no_record_is_damage(text):
    source, dest = DictStore({"a/1": b"1", "x": b"2"}), DictStore()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        with pytest.raises(InterruptedError):
            copy_store(source, dest, resume=path, if_exists="replace", progress=interrupt)
        with path.open("ab") as file:
            file.write(b"%08x %s\n" % (zlib.crc32(text), text) + path.read_bytes().splitlines(keepends=True)[-1])
        with pytest.raises(DamagedStoreError, match="damaged in line"):
            copy_store(source, dest, resume=path, if_exists="replace")


def interrupt(*_: object) -> None:
    raise InterruptedError
