"""Copying: what zarr 2 did, what it lost, and what happens when things break half way."""

from __future__ import annotations

import errno
import io
import os
import pickle
import signal
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.ahead import AheadStore
from zarrstore import CopyError, DictStore, DirectoryStore, copy_store
from zarrstore.adapt import as_store
from zarrstore.base import Entry
from zarrstore.batch import LazyItems
from zarrstore.driver import Pair
from zarrstore.errors import DestinationExistsError, InvalidKeyError, ReadOnlyError
from zarrstore.testing import CountingStore, FailingStore, Recorder, SlowStore, tree
from zarrstore.tools.batches import Batches
from zarrstore.tools.transfer import BatchOptions, copy_batch

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


def test_documents_first_goes_breadth_first_from_the_root() -> None:
    recorder = Recorder()
    copy_store(HIERARCHY, recorder.watch({}, "dest"), documents_first=True)
    keys = [key for _, action, key in recorder.order() if action == "set"]
    assert keys[:2] == [".zgroup", ".zmetadata"]
    assert [key.count("/") for key in keys[:7]] == [0, 0, 1, 1, 1, 2, 2]
    assert set(keys[7:]) == {"a/0", "a/1", "g/b/0.0"}


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


def test_what_is_at_a_destination_that_cannot_be_listed_is_asked_for_by_name() -> None:
    class Unlistable(DictStore):
        capabilities = replace(DictStore.capabilities, listable=False)

        def _keys(self, path: str) -> Any:
            raise AssertionError("it cannot be listed")

    dest = Unlistable({"a/1": b"old", "of somebody else": b""})
    with pytest.raises(DestinationExistsError):
        copy_store(HIERARCHY, dest)
    assert copy_store(HIERARCHY, dest, if_exists="skip")[:2] == (9, 1)
    assert dest["a/1"] == b"old"


def test_what_else_is_at_the_destination_stays() -> None:
    dest = {"a/0.5": b"", "z": b"", "a/1": b"old"}
    assert copy_store(HIERARCHY, dest, if_exists="skip")[:2] == (9, 1)
    assert dest == {**HIERARCHY, "a/0.5": b"", "z": b"", "a/1": b"old"}


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


def test_a_full_disk_stops_at_once_where_keys_are_tried_one_by_one_too() -> None:
    class Full(DictStore):
        tries = 0

        def _set(self, key: str, value: bytes) -> None:
            self.tries += 1
            raise OSError(5 if self.tries == 1 else 28, "Input/output error, then no space left on device")

    dest = Full()
    with pytest.raises(OSError, match="no space"):
        copy_store(HIERARCHY, dest)
    assert dest.tries == 2


def test_a_batch_elsewhere_makes_its_work_durable_before_it_ends() -> None:
    recorder = Recorder()
    dest = recorder.watch({}, "dest")
    copy_batch(as_store({"a": b"1"}), dest, [Pair("a", "b")], BatchOptions(flush=True))
    recorder.require_order(("dest", "set", "b"), ("dest", "flush"))


def test_what_reads_back_differently_is_an_error() -> None:
    class Lossy(DictStore):
        def _set(self, key: str, value: bytes) -> None:
            super()._set(key, value[:-1] if key == "a/0" else value)

    with pytest.raises(CopyError, match="reads back as another value"):
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
    # The listing tells no sizes, so the batches grow from 1 to 500 keys.
    assert source.calls["_get_many"] < 40
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


def test_batches_in_threads_run_at_the_same_time_and_the_destination_is_flushed_once() -> None:
    both = threading.Barrier(2, timeout=20)

    class Meeting(DictStore):
        def _get(self, key: str) -> bytes:
            if key in ("k000", "k500"):
                both.wait()
            return super()._get(key)

    class Durable(DictStore):
        capabilities = replace(DictStore.capabilities, durable_flush=True)
        flushes = 0

        def _flush(self) -> None:
            self.flushes += 1

    dest = Durable()
    with ThreadPoolExecutor(2) as executor:
        copy_store(Meeting({f"k{n:03d}": b"" for n in range(1000)}), dest, executor=executor)
    assert (len(dest), dest.flushes) == (1000, 1)


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


def test_unless_both_stores_travel_the_work_is_done_here(tmp_path: Path) -> None:
    class NoExecutor(ProcessPoolExecutor):
        def submit(self, *args: Any, **kwargs: Any) -> Any:
            raise AssertionError("a half of the work would travel")

    source = DirectoryStore(tmp_path / "s")
    source.update({f"a/{n}": str(n).encode() for n in range(700)})
    memory = DictStore()
    with NoExecutor(2) as executor:
        copy_store(source, memory, executor=executor, verify=True)
        assert dict(memory) == dict(source)
        back = DirectoryStore(tmp_path / "back")
        copy_store(memory, back, executor=executor)
        assert dict(back) == dict(memory)
        no_pickle = DirectoryStore(tmp_path / "s")
        no_pickle.lock = threading.Lock()  # type: ignore[attr-defined]
        no_pickle.__class__ = type("NoPickle", (DirectoryStore,), {"__getstate__": lambda self: self.__dict__})
        copy_store(no_pickle, DirectoryStore(tmp_path / "other"), executor=executor)
        assert dict(DirectoryStore(tmp_path / "other")) == dict(source)


def test_threads_never_share_a_store_that_is_not_safe_for_them() -> None:
    class OneThread(DictStore):
        capabilities = replace(DictStore.capabilities, thread_safe=False)

        def _get(self, key: str) -> bytes:
            assert threading.current_thread() is threading.main_thread()
            return super()._get(key)

    with ThreadPoolExecutor(2) as executor:
        assert copy_store(OneThread({"a": b"1"}), {}, executor=executor)[:2] == (1, 0)


@pytest.mark.parametrize("where", ["here", "threads", "processes"])
def test_errors_are_named_by_source_key_and_hold_documents_back_in_every_executor(where: str, tmp_path: Path) -> None:
    source = DirectoryStore(tmp_path / "s")
    source.update({"a/.zarray": b"{}", "a/0": b"1", "b/.zarray": b"{}", "b/0": b"2", ".zmetadata": b"{}"})
    dest = DirectoryStore(tmp_path / "d")
    dest["t/a/0/x"] = b"a value where a directory must be"
    executors = {
        "here": nullcontext,
        "threads": lambda: ThreadPoolExecutor(2),
        "processes": lambda: ProcessPoolExecutor(2),
    }
    with executors[where]() as executor:
        result = copy_store(source, dest, dest_path="t", executor=executor, errors="collect", if_exists="replace")
    assert set(result.errors) == {"a/0", "a/.zarray", ".zmetadata"}
    assert sorted(dest) == ["t/a/0/x", "t/b/.zarray", "t/b/0"]


def test_a_value_that_cannot_be_read_back_is_an_error_of_its_key() -> None:
    class Sealed(DictStore):
        def _get(self, key: str) -> bytes:
            if key == "a/0":
                raise OSError(5, "Input/output error")
            return super()._get(key)

    dest = Sealed()
    result = copy_store(HIERARCHY, dest, verify=True, errors="collect")
    assert set(result.errors) == {"a/0", "a/.zarray", ".zmetadata"}
    assert "cannot be read back" in result.errors["a/0"]


def test_the_destination_is_flushed_after_the_last_document() -> None:
    recorder = Recorder()
    copy_store(HIERARCHY, recorder.watch({}, "dest"))
    recorder.require_order(("dest", "set", "a/0"), ("dest", "set", "a/.zarray"), ("dest", "set", ".zmetadata"))
    recorder.require_order(("dest", "set"), ("dest", "flush"))


@pytest.mark.parametrize("documents_first", [False, True])
def test_memory_is_bounded_for_a_source_that_fetches_ahead_and_tells_no_sizes(documents_first: bool) -> None:
    size, count, memory = 1 << 20, 60, 4 << 20
    value = bytes(size)
    source = AheadStore({f"a/{n}": value for n in range(count)}, keeps=True)

    class Dest(DictStore):
        """Counts a value as under way until it is written."""

        def _set(self, key: str, value: bytes) -> None:
            source.release(key)
            super()._set(key, b"")

    copy_store(source, Dest(), workers=4, memory=memory, documents_first=documents_first)
    assert source.under_way == set()
    # What is under way, and one value more in each thread that its consumer has not let go of yet.
    assert source.most * size <= memory + size


def test_a_value_larger_than_the_budget_travels_alone() -> None:
    batches = Batches(memory=100, share=25, unknown_is_large=True)
    sizes = [10, 10, 200, 10, 25, 1]
    cut = [[entry.nbytes for entry in batch] for batch, _ in batches.cut(Entry(str(n), n) for n in sizes)]
    assert cut == [[10, 10], [200], [10], [25], [1]]
    for keys, largest in ((1, 5), (4, 5), (5, 30), (1, 30)):
        (batch, _), *_ = batches.cut(Entry(str(n)) for n in range(9))
        assert len(batch) == keys
        batches.learn(largest)


def test_sizes_that_a_listing_tells_let_the_first_batch_be_large() -> None:
    class Listed(CountingStore):
        def _details(self, path: str) -> Any:
            return self.inner._details(path)

    source = Listed(SlowStore({f"k{n}": b"v" for n in range(1000)}, delay=0.001))
    source.inner._details = source.inner.inner._details  # type: ignore[attr-defined, method-assign]
    copy_store(source, {})
    assert source.calls["_get_many"] == 2


def test_one_value_is_copied_by_its_key() -> None:
    dest: dict[str, bytes] = {"0": b"old"}
    assert copy_store(HIERARCHY, dest, source_path="a/1")[:2] == (1, 0)
    assert copy_store(HIERARCHY, dest, source_path="a/1", dest_path="b/2")[:2] == (1, 0)
    assert dest == {"0": b"old", "1": b"chunk 1", "b/2": b"chunk 1"}
    for dest_path in ("", "b/2"):
        with pytest.raises(DestinationExistsError):
            copy_store(HIERARCHY, dest, source_path="a/1", dest_path=dest_path)
    assert copy_store(HIERARCHY, dest, source_path="a/1", if_exists="skip")[:2] == (0, 1)


def test_a_source_path_at_which_nothing_is_copies_nothing_and_says_so() -> None:
    with pytest.raises(KeyError, match="typo"):
        copy_store(HIERARCHY, {}, source_path="typo")
    assert copy_store({}, {})[:2] == (0, 0)


def test_a_summary_counts_what_was_copied_deleted_and_failed() -> None:
    lines: list[str] = []
    source = FailingStore({"a": b"1", "b": b"2"}, OSError(5, "Input/output error"), methods=["_get"], keys=["a"])
    copy_store(source, {}, errors="collect", log=lines.append)
    assert lines[-1] == "all done: 1 copied, 0 skipped, 1 bytes copied, 1 errors"


def test_batches_of_all_threads_together_stay_within_the_memory() -> None:
    import threading
    import time

    running, most = [0], [0]
    lock = threading.Lock()

    class Source(DictStore):
        capabilities = replace(DictStore.capabilities, concurrent=True)

        def _details(self, path: str) -> Any:
            return (Entry(key, len(self.root[key])) for key in list(self.root))

    class Dest(DictStore):
        capabilities = replace(DictStore.capabilities, concurrent=True)

        def _set_many(self, items: Any) -> None:
            for key, value in items:
                with lock:
                    running[0] += len(value)
                    most[0] = max(most[0], running[0])
                time.sleep(0.002)
                with lock:
                    running[0] -= len(value)
                self._set(key, value)

    source = Source({f"a/{n}": bytes(60) for n in range(40)})
    dest = Dest()
    copy_store(source, dest, workers=4, memory=130)
    assert dict(dest) == dict(source)
    assert most[0] <= 130 + 60


def test_a_copy_that_fails_returns_when_nothing_of_it_runs_any_more() -> None:
    begun, ended, never = threading.Event(), threading.Event(), threading.Event()

    class Full(DictStore):
        def _set_many(self, items: Any) -> None:
            if "slow" in {key for key, _ in items}:
                begun.set()
                never.wait(0.3)
                ended.set()
            else:
                assert begun.wait(60)
                raise OSError(errno.ENOSPC, "No space left on device")

    source = {f"{n:03d}": b"" for n in range(500)} | {"slow": b""}  # a batch of 500 keys, and one more
    with ThreadPoolExecutor(2) as executor:
        with pytest.raises(OSError, match="No space"):
            copy_store(source, Full(), executor=executor)
        assert ended.is_set()
