"""Copying: what zarr 2 did, what it lost, and what happens when things break half way."""

from __future__ import annotations

import io
import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from zarrstore import CopyError, DictStore, DirectoryStore, copy_store
from zarrstore.batch import LazyItems
from zarrstore.errors import DamagedStoreError, DestinationExistsError, InvalidKeyError, ReadOnlyError
from zarrstore.testing import CountingStore, FailingStore, SlowStore, tree
from zarrstore.tools.journal import Journal

HIERARCHY = {
    ".zgroup": b"{}",
    ".zmetadata": b"{}",
    "a/.zarray": b"{}",
    "a/.zattrs": b"{}",
    "a/0": b"chunk 0",
    "a/1": b"chunk 1",
    "g/.zgroup": b"{}",
    "g/b/.zarray": b"{}",
    "g/b/0.0": b"chunk 00",
    "g/b/zarr.json": b"{}",
}


def test_everything_is_copied_byte_for_byte() -> None:
    dest: dict[str, bytes] = {}
    result = copy_store(tree(), dest, verify=True)
    assert dest == tree()
    assert result == (len(tree()), 0, sum(map(len, tree().values())))
    assert result.errors == {}


def test_a_part_goes_to_another_place_and_takes_no_neighbour() -> None:
    dest: dict[str, bytes] = {}
    copy_store(tree(), dest, source_path="/foo/", dest_path="new//place")
    assert dest == {"new/place/bar": b"1", "new/place/oof/x": b"22", "new/place/foo/foo": b"333"}


def test_chunks_come_first_and_the_root_s_documents_last() -> None:
    dest = CountingStore({})
    copy_store(HIERARCHY, dest)
    written = [key for method, *args in dest.log if method == "_set_many" for key, _ in args[0]]
    assert sorted(written) == sorted(HIERARCHY)
    assert set(written[:3]) == {"a/0", "a/1", "g/b/0.0"}
    assert written.index("g/b/.zarray") < written.index("a/.zarray") < written.index(".zgroup")
    assert written[-1] == ".zmetadata"


def test_excludes_and_includes_are_searched_for_in_the_source_key() -> None:
    dest: dict[str, bytes] = {}
    copy_store(HIERARCHY, dest, excludes="^g/", includes=[r"\.zgroup$"])
    assert sorted(dest) == [".zgroup", ".zmetadata", "a/.zarray", "a/.zattrs", "a/0", "a/1", "g/.zgroup"]


def test_what_exists_raises_before_anything_is_written_or_is_skipped_or_replaced() -> None:
    dest = {"a/1": b"old"}
    with pytest.raises(DestinationExistsError, match="if_exists='skip'"):
        copy_store(HIERARCHY, dest)
    assert dest == {"a/1": b"old"}
    assert copy_store(HIERARCHY, dest, if_exists="skip")[:2] == (9, 1)
    assert dest == {**HIERARCHY, "a/1": b"old"}
    assert copy_store(HIERARCHY, dest, if_exists="replace")[:2] == (10, 0)
    assert dest == HIERARCHY
    with pytest.raises(ValueError, match="if_exists is 'ask'"):
        copy_store(HIERARCHY, dest, if_exists="ask")


def test_a_dry_run_says_what_it_would_do_and_writes_nothing() -> None:
    lines: list[str] = []
    dest = {"a/1": b"old"}
    assert copy_store(HIERARCHY, dest, if_exists="skip", dry_run=True, log=lines.append) == (9, 1, 0)
    assert dest == {"a/1": b"old"}
    assert "skip a/1" in lines
    assert "copy g/b/0.0" in lines
    assert lines[-1] == "dry run: 9 copied, 1 skipped, 0 bytes copied"


def test_the_log_may_be_a_function_a_file_or_a_path(tmp_path: Path) -> None:
    file = io.StringIO()
    copy_store({"a": b"1"}, {}, dest_path="b", log=file)
    assert file.getvalue() == "copy a -> b/a\nall done: 1 copied, 0 skipped, 1 bytes copied\n"
    copy_store({"a": b"1"}, {}, log=tmp_path / "log")
    assert (tmp_path / "log").read_text().startswith("copy a\n")


@pytest.mark.parametrize("name", ["../../evil", "/etc/x", "a//b", "..", "a\\b"])
def test_a_name_that_no_store_can_hold_stops_the_copy_before_it_begins(name: str) -> None:
    dest: dict[str, bytes] = {}
    with pytest.raises(InvalidKeyError):
        copy_store({"good": b"1", name: b"evil"}, dest)
    assert dest == {}


def test_a_read_only_destination_is_refused() -> None:
    from types import MappingProxyType

    with pytest.raises(ReadOnlyError):
        copy_store({"a": b"1"}, MappingProxyType({}))  # type: ignore[arg-type]


def test_a_key_that_cannot_be_read_spares_the_others_and_holds_its_array_back() -> None:
    source = FailingStore(HIERARCHY, OSError(5, "Input/output error"), methods=["_get"], keys=["a/1"])
    source._get_many = lambda keys: LazyItems(source._get, keys)  # type: ignore[method-assign]
    dest: dict[str, bytes] = {}
    with pytest.raises(CopyError, match="Input/output error") as caught:
        copy_store(source, dest)
    assert set(HIERARCHY) - set(dest) == {"a/1", "a/.zarray", ".zmetadata"}
    assert set(caught.value.errors) == {"a/1", "a/.zarray", ".zmetadata"}
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    dest.clear()
    result = copy_store(source, dest, errors="collect")
    assert set(result.errors) == {"a/1", "a/.zarray", ".zmetadata"}
    assert result.n_copied == len(HIERARCHY) - 3


def test_a_key_that_cannot_be_written_spares_the_others(tmp_path: Path) -> None:
    dest = DirectoryStore(tmp_path / "d")
    source = {"a/0": b"1", "a/1": b"2", "a": b"a value where a directory must be", "b/0": b"3"}
    with pytest.raises(CopyError) as caught:
        copy_store(source, dest)
    failed = set(caught.value.errors)
    assert failed in ({"a"}, {"a/0", "a/1"})
    assert dict(dest) == {key: value for key, value in source.items() if key not in failed}


def test_a_full_disk_stops_at_once() -> None:
    dest = FailingStore({}, OSError(28, "No space left on device"), methods=["_set", "_set_many"])
    with pytest.raises(OSError, match="No space left"):
        copy_store(HIERARCHY, dest)
    assert dest.failures == 1


def test_what_reads_back_differently_is_an_error() -> None:
    class Lossy(DictStore):
        def _set(self, key: str, value: bytes) -> None:
            super()._set(key, value[:-1] if key == "a/0" else value)

    with pytest.raises(CopyError, match="reads back as something else"):
        copy_store(HIERARCHY, Lossy(), verify=True)
    assert copy_store(HIERARCHY, Lossy()).errors == {}


def test_progress_is_told_and_ends_at_the_total() -> None:
    seen: list[Any] = []
    copy_store({f"k{n}": b"12" for n in range(1200)}, {}, progress=seen.append)
    assert len(seen) == 3
    assert (seen[-1].done, seen[-1].total, seen[-1].nbytes) == (1200, 1200, 2400)
    assert [step.done for step in seen] == sorted(step.done for step in seen)


def test_a_slow_store_is_asked_in_batches() -> None:
    source = CountingStore(SlowStore({f"k{n}": b"v" for n in range(1000)}, delay=0.01))
    dest: dict[str, bytes] = {}
    copy_store(source, dest)
    assert len(dest) == 1000
    assert source.calls["_get_many"] == 2
    assert source.calls["_get"] == 0


# Executors ----------------------------------------------------------------------------------------------------------


def test_threads(tmp_path: Path) -> None:
    source = DirectoryStore(tmp_path / "s")
    source.update({f"a/{n}": str(n).encode() for n in range(1500)})
    with ThreadPoolExecutor(4) as executor:
        dest = DirectoryStore(tmp_path / "d")
        assert copy_store(source, dest, executor=executor, verify=True)[:2] == (1500, 0)
    assert dict(dest) == dict(source)
    assert copy_store(source, DirectoryStore(tmp_path / "e"), workers=3)[:2] == (1500, 0)


def test_processes_and_a_worker_that_is_killed(tmp_path: Path) -> None:
    source = DirectoryStore(tmp_path / "s")
    source.update({f"a/{n}": str(n).encode() for n in range(4000)})
    dest = DirectoryStore(tmp_path / "d")
    killed: list[int] = []

    with ProcessPoolExecutor(2) as executor:

        def kill_one(progress: Any) -> None:
            if not killed and progress.done >= 500:
                killed.extend(list(executor._processes)[:1])
                os.kill(killed[0], signal.SIGKILL)

        result = copy_store(source, dest, executor=executor, progress=kill_one)
    assert killed
    assert result.errors == {}
    assert dict(dest) == dict(source)


def test_a_store_of_one_process_stays_here_and_the_other_half_travels(tmp_path: Path) -> None:
    source = DirectoryStore(tmp_path / "s")
    source.update({f"a/{n}": str(n).encode() for n in range(700)})
    memory = DictStore()
    with ProcessPoolExecutor(2) as executor:
        copy_store(source, memory, executor=executor, verify=True)
        assert dict(memory) == dict(source)
        back = DirectoryStore(tmp_path / "back")
        copy_store(memory, back, executor=executor)
        assert dict(back) == dict(memory)
        other = DictStore()
        copy_store(memory, other, executor=executor)
        assert other == memory


# Resuming -----------------------------------------------------------------------------------------------------------


def test_what_the_journal_names_is_not_read_again_and_the_journal_goes_when_all_is_done(tmp_path: Path) -> None:
    data = {f"a/{n}": b"v" for n in range(1000)}
    dest = DictStore()
    calls = []

    def stop(progress: Any) -> None:
        calls.append(progress)
        time.sleep(1.1)  # past a checkpoint
        if len(calls) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy_store(data, dest, resume=tmp_path / "journal", progress=stop)
    source = CountingStore(data)
    result = copy_store(source, dest, resume=tmp_path / "journal")
    assert result.n_copied + result.n_skipped == 1000
    assert result.n_skipped >= 500
    asked = [args[0] for method, *args in source.log if method == "_get"]
    assert len(asked) == result.n_copied
    assert dict(dest) == data
    assert not (tmp_path / "journal").exists()


def test_a_journal_of_other_work_is_refused_and_a_torn_one_is_read_as_far_as_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal(path, {"from": "a"}) as journal:
        journal.record(["one", "two"])
        journal.record(["three"])
    with pytest.raises(DamagedStoreError, match="no journal of this copy"):
        Journal(path, {"from": "b"})
    whole = path.read_bytes()
    for cut in range(len(whole) - 7, len(whole)):
        path.write_bytes(whole[:cut])
        with Journal(path, {"from": "a"}) as journal:
            assert journal.done == {"one", "two"}
            journal.record(["four"])
        with Journal(path, {"from": "a"}) as journal:
            assert journal.done == {"one", "two", "four"}
    path.write_bytes(b"not a journal at all")
    with pytest.raises(DamagedStoreError):
        Journal(path, {"from": "a"})
    assert path.read_bytes() == b"not a journal at all"


KILLED = """
import sys, time
from zarrstore import DirectoryStore, copy_store

def slowly(progress):
    print(progress.done, flush=True)
    time.sleep(0.6)

copy_store(DirectoryStore(sys.argv[1]), DirectoryStore(sys.argv[2]), resume=sys.argv[3], progress=slowly)
"""


def test_killed_at_any_moment_it_resumes_to_the_same_end(tmp_path: Path) -> None:
    source = DirectoryStore(tmp_path / "s")
    source.update({f"a/{n}": str(n).encode() * 10 for n in range(3000)})
    source["a/.zarray"] = b"{}"
    script = [sys.executable, "-c", KILLED, str(tmp_path / "s"), str(tmp_path / "d"), str(tmp_path / "journal")]
    child = subprocess.Popen(script, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent.parent)
    assert child.stdout is not None
    for line in child.stdout:
        if line.strip().isdigit() and int(line) >= 2000:
            break
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    dest = DirectoryStore(tmp_path / "d")
    assert "a/.zarray" not in dest
    counted = CountingStore(source)
    result = copy_store(counted, dest, resume=tmp_path / "journal")
    asked = [args[0] for method, *args in counted.log if method == "_get"]
    assert len(asked) == result.n_copied == 3001 - result.n_skipped
    assert result.n_skipped >= 1000
    assert dict(dest) == dict(source)
