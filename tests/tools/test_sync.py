"""Copies that write only what differs, and delete what the source does not have."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.cases import each_of
from zarrstore import (
    CopyError,
    DictStore,
    DirectoryStore,
    FSStore,
    ObstoreStore,
    PrefixStore,
    UnsupportedOperation,
    copy_store,
    diff,
    open_store,
)
from zarrstore.base import Capabilities
from zarrstore.cli.group import run
from zarrstore.errors import StoreNotFoundError
from zarrstore.testing import CountingStore, FailingStore, Recorder
from zarrstore.tools.manifest import manifest_of
from zarrstore.tools.throttle import ThrottledStore

SOURCE = {".zgroup": b"{}", "a/.zarray": b"{}", "a/0": b"new", "a/1": b"longer", "a/2": b"same"}
DEST = {
    ".zgroup": b"{}",
    "a/.zarray": b"{}",
    "a/0": b"old",
    "a/1": b"short",
    "a/2": b"same",
    "b/.zarray": b"",
    "b/0": b"",
}


def test_only_what_differs_is_written() -> None:
    dest = CountingStore(dict(DEST))
    assert copy_store(SOURCE, dest, if_exists="differ")[:2] == (2, 3)
    written = [key for method, *args in dest.log if method == "_set_many" for key, _ in args[0]]
    assert written == ["a/0", "a/1"]
    assert dict(dest) == {**DEST, **SOURCE}
    dest.reset()
    assert copy_store(SOURCE, dest, if_exists="differ")[:2] == (0, 5)
    assert dest.calls["_set_many"] == 0


def test_values_of_different_size_are_not_compared() -> None:
    class Unread(DictStore):
        def _get(self, key: str) -> bytes:
            assert key == "a/0"
            return super()._get(key)

    assert copy_store({"a/0": b"1", "a/1": b"22"}, Unread({"a/0": b"1", "a/1": b"2"}), if_exists="differ")[:2] == (1, 1)


def test_a_value_that_cannot_be_compared_is_copied_or_reported() -> None:
    dest = DictStore(dict(DEST))
    source = FailingStore(SOURCE, OSError(5, "Input/output error"), methods=["_get", "_get_many"], keys=["a/2"])
    with pytest.raises(OSError, match="Input/output"):
        copy_store(source, dest, if_exists="differ")


def test_what_the_source_does_not_have_is_deleted_at_the_end_documents_first() -> None:
    recorder = Recorder()
    dest = recorder.watch(dict(DEST), "dest")
    result = copy_store(SOURCE, dest, if_exists="differ", delete=True)
    assert (result.n_copied, result.n_skipped, result.n_deleted) == (2, 3, 2)
    assert dict(dest) == SOURCE
    recorder.require_order(("dest", "set", "a/1"), ("dest", "delete", "b/.zarray"), ("dest", "delete", "b/0"))
    after = recorder.order()[recorder.order().index(("dest", "delete", "b/.zarray")) :]
    assert after == [
        ("dest", "delete", "b/.zarray"),
        ("dest", "flush", ""),
        ("dest", "delete", "b/0"),
        ("dest", "flush", ""),
    ]


@pytest.mark.parametrize("if_exists", ["skip", "replace", "differ"])
def test_delete_goes_with_every_choice_and_below_the_path_only(if_exists: str) -> None:
    dest = {f"to/{key}": value for key, value in DEST.items()} | {"tofu/x": b"", "other": b""}
    copy_store(SOURCE, dest, dest_path="to", if_exists=if_exists, delete=True)
    assert set(dest) == {f"to/{key}" for key in SOURCE} | {"tofu/x", "other"}


def test_what_is_excluded_is_not_deleted() -> None:
    dest = dict(DEST)
    copy_store(SOURCE, dest, excludes="^b/", if_exists="differ", delete=True)
    assert set(dest) == set(DEST)


def test_nothing_is_deleted_after_an_error_nor_in_a_dry_run() -> None:
    class Bad(DictStore):
        def _set(self, key: str, value: bytes) -> None:
            raise OSError(5, "Input/output error")

    dest = Bad(dict(DEST))
    with pytest.raises(CopyError):
        copy_store(SOURCE, dest, if_exists="differ", delete=True)
    assert dict(dest) == DEST
    lines: list[str] = []
    plain = dict(DEST)
    result = copy_store(SOURCE, plain, if_exists="differ", delete=True, dry_run=True, log=lines.append)
    assert (plain, result.n_deleted) == (DEST, 2)
    assert "delete b/.zarray" in lines


def test_an_empty_source_never_empties_the_destination() -> None:
    dest = dict(DEST)
    with pytest.raises(StoreNotFoundError):
        copy_store({}, dest, if_exists="differ", delete=True)
    assert dest == DEST


def test_delete_is_refused_where_what_is_there_cannot_be_known_or_deleted() -> None:
    class Unlistable(DictStore):
        capabilities = Capabilities(listable=False)

    class Archive(DictStore):
        capabilities = Capabilities(erasable=False)

    for source, dest in ((SOURCE, Unlistable(dict(DEST))), (SOURCE, Archive(dict(DEST)))):
        with pytest.raises(UnsupportedOperation):
            copy_store(source, dest, if_exists="differ", delete=True)
        assert dest.root == DEST


def test_an_interrupted_copy_with_delete_goes_on(tmp_path: Path) -> None:
    class Stop(BaseException):
        pass

    class Stopping(DictStore):
        at = "a/1"

        def _set(self, key: str, value: bytes) -> None:
            if key == self.at:
                raise Stop
            super()._set(key, value)

    dest = Stopping(dict(DEST))
    options: dict[str, Any] = {"if_exists": "differ", "delete": True, "resume": tmp_path / "journal"}
    with pytest.raises(Stop):
        copy_store(SOURCE, dest, **options)
    assert "b/0" in dest
    dest.at = ""
    copy_store(SOURCE, dest, **options)
    assert dict(dest) == SOURCE


def test_the_command_line_syncs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, dest = str(tmp_path / "s"), str(tmp_path / "d.zip")
    DirectoryStore(source).update(SOURCE)
    assert run(["sync", source, dest]) == 0
    assert "copied 5 keys" in capsys.readouterr().err
    PrefixStore(DirectoryStore(source), "a")["1"] = b"changed"
    with open_store(dest, mode="r+") as store:
        store["stray"] = b""
    assert run(["sync", source, dest, "--delete", "-n"]) == 0
    assert "would copy 1 keys (0 bytes), skipped 4, would delete 1" in capsys.readouterr().err
    assert run(["sync", source, dest, "--delete"]) == 0
    assert "copied 1 keys (7 bytes), skipped 4, deleted 1, errors 0" in capsys.readouterr().err
    with open_store(dest, mode="r") as store:
        assert list(diff(DirectoryStore(source), store)) == []
    assert run(["copy", source, dest, "--if-exists", "differ"]) == 0
    assert "skipped 5" in capsys.readouterr().err


def test_every_surplus_key_is_deleted_once_and_counted() -> None:
    dest = DictStore({**SOURCE, "s/.zarray": b"{}", "s/0": b"1", "s/1": b"2"})
    recorder = Recorder()
    lines: list[str] = []
    result = copy_store(SOURCE, recorder.watch(dest, "dest"), if_exists="skip", delete=True, log=lines.append)
    assert result.n_deleted == 3
    assert [line for line in lines if line.startswith("delete")] == ["delete s/.zarray", "delete s/0", "delete s/1"]
    deleted = [str(event) for event in recorder.events if "delete" in str(event)]
    assert [sum(key in event for event in deleted) for key in ("s/.zarray", "s/0", "s/1")] == [1, 1, 1]
    assert dict(dest) == SOURCE


# What listings prove -----------------------------------------------------------------------------------------------


class Remote(CountingStore):
    """A store as an object service is: its listing tells sizes, MD5 and times; reads and writes are counted."""

    def __init__(self, inner: dict[str, bytes], modified: float = 1000.0, digest: str = "md5") -> None:
        super().__init__(inner)
        self.capabilities = replace(self.capabilities, concurrent=True)
        self.modified, self.algorithm = modified, digest

    def _details(self, path: str) -> Any:
        for entry in self.inner._details(path):
            value = self.inner._get(entry.key)
            digest = {"md5": f"md5:{hashlib.md5(value).hexdigest()}", "": ""}[self.algorithm]
            yield entry._replace(digest=digest, modified=self.modified)


def many(count: int) -> dict[str, bytes]:
    return {"a/.zarray": b"{}", **{f"a/{n}": b"%08d" % n for n in range(count)}}


def test_what_two_listings_prove_to_be_equal_is_neither_read_nor_written() -> None:
    source, dest = Remote(many(3000)), Remote(many(3000))
    assert copy_store(source, dest, if_exists="differ")[:2] == (0, 3001)
    assert (source.reads, dest.reads, dest.writes) == (0, 0, 0)
    source.inner["a/7"] = b"-" * 8
    assert copy_store(source, dest, if_exists="differ").n_copied == 1
    assert dest["a/7"] == b"-" * 8


def test_a_checksum_of_one_side_spares_reading_that_side() -> None:
    source, dest = CountingStore(DictStore(many(10))), Remote(many(10))
    source.inner["a/3"] = b"changed!"
    assert copy_store(source, dest, if_exists="differ")[:2] == (1, 10)
    assert dest.reads == 0
    assert dest["a/3"] == b"changed!"
    source, dest = Remote(many(10)), CountingStore(DictStore(many(10)))
    assert copy_store(source, dest, if_exists="differ", checksum=True)[:2] == (0, 11)
    assert (source.reads, dest.writes) == (0, 0)


def test_a_manifest_of_the_destination_spares_reading_it() -> None:
    dest = CountingStore(DictStore(many(10)))
    known = manifest_of(dest.inner)
    source = DictStore(many(10))
    source["a/3"] = b"changed!"
    assert copy_store(source, dest, if_exists="differ", manifest=known)[:2] == (1, 10)
    assert dest.reads == 0


def test_time_is_the_last_resort_and_is_noted() -> None:
    source, dest = Remote(many(10), 1000.0, ""), Remote(many(10), 2000.0, "")
    source.inner["a/3"] = b"changed!"
    result = copy_store(source, dest, if_exists="differ")
    # The document is compared all the same: it hides or shows an array.
    assert result[:2] == (0, 11)
    assert [method for method in source.calls if method.startswith("_get")] == ["_get_many"]
    assert "10 chunks were taken for unchanged by size and time" in result.notes[0]
    result = copy_store(source, dest, if_exists="differ", checksum=True)
    assert (result[:2], result.notes) == ((1, 10), [])
    source.modified = 3000.0
    source.inner["a/4"] = b"CHANGED!"
    assert copy_store(source, dest, if_exists="differ")[:2] == (1, 10)


def test_on_one_machine_time_proves_nothing(tmp_path: Path) -> None:
    source, dest = DirectoryStore(tmp_path / "s"), DirectoryStore(tmp_path / "d")
    source.update(many(3))
    dest.update({**many(3), "a/1": b"differs!"})
    result = copy_store(source, dest, if_exists="differ")
    assert (result[:2], result.notes) == ((1, 3), [])


def test_zips_tell_their_checksums(tmp_path: Path) -> None:
    with open_store(tmp_path / "s.zip", mode="w") as one, open_store(tmp_path / "d.zip", mode="w") as other:
        one.update(many(5))
        other.update({**many(5), "a/1": b"differs!"})
        one.flush()
        other.flush()
        source, dest = CountingStore(one), CountingStore(other)
        source._details, dest._details = one._details, other._details  # type: ignore[method-assign]
        assert copy_store(source, dest, if_exists="differ", dry_run=True)[:2] == (1, 5)
        assert (source.reads, dest.reads) == (0, 0)


@each_of(
    ("includes", "excludes", "wanted"),
    [
        (["a"], [], {"a/.zarray", "a/0", "deep/a/0"}),
        (["/a"], [], {"a/.zarray", "a/0"}),
        (["/a/", "*.zarr"], [], {"a/.zarray", "a/0", "x.zarr/0", "deep/y.zarr"}),
        (["**/0"], [], {"a/0", "deep/a/0", "x.zarr/0"}),
        (["/d**/0"], [], {"deep/a/0"}),
        (["[ab]/?"], [], {"a/0", "deep/a/0", "b/1"}),
        ([], ["0", "*.zarr"], {"a/.zarray", "b/1", "ab"}),
        (["a", "b"], [".z*"], {"a/0", "deep/a/0", "b/1"}),
        (["[!a]/1"], [], {"b/1"}),
    ],
)
def test_an_include_alone_means_only_those(includes: list[str], excludes: list[str], wanted: set[str]) -> None:
    names = ("a/.zarray", "a/0", "ab", "b/1", "deep/a/0", "x.zarr/0", "deep/y.zarr")
    dest: dict[str, bytes] = {}
    source = {f"from/{name}": b"" for name in names}
    copy_store(source, dest, "from", "to", include_globs=includes, exclude_globs=excludes)
    assert dest.keys() == {f"to/{name}" for name in wanted}


def test_keys_that_globs_leave_out_are_not_deleted() -> None:
    dest = dict(DEST)
    copy_store(SOURCE, dest, exclude_globs=["/b"], if_exists="differ", delete=True)
    assert set(dest) == set(DEST)


def test_the_command_line_takes_globs_and_prints_what_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, dest = str(tmp_path / "s"), str(tmp_path / "d")
    DirectoryStore(source).update({**SOURCE, "b/.zarray": b"{}", "b/0": b"1"})
    assert run(["sync", source, dest, "--include", "/b", "--exclude", ".z*", "-q"]) == 0
    assert capsys.readouterr() == ("", "")
    assert set(DirectoryStore(dest)) == {"b/0"}
    assert run(["sync", source, dest, "--json-lines", "--retries", "2", "--bwlimit", "100", "--checksum"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {"action": "skip", "key": "b/0", "dest_key": "b/0"} in lines
    assert {"action": "copy", "key": "a/0", "dest_key": "a/0"} in lines
    assert (lines[-1]["action"], lines[-1]["copied"], lines[-1]["skipped"]) == ("end", 6, 1)


def test_a_rate_holds_for_all_that_is_written() -> None:
    waits: list[float] = []
    dest = ThrottledStore({}, rate=100, sleep=waits.append, clock=lambda: 0.0)
    copy_store({f"a/{n}": bytes(50) for n in range(10)}, dest)
    assert max(waits) == 5.0


@each_of(
    "make", [lambda path: ObstoreStore.from_url(path.as_uri()), lambda path: FSStore(path.as_uri()), DirectoryStore]
)
def test_files_of_this_machine_are_compared_whatever_opens_them(tmp_path: Path, make: Any) -> None:
    at = tmp_path / str(len(list(tmp_path.iterdir())))
    source = DirectoryStore(at / "s")
    source["a/0"] = b"new"
    os.utime(at / "s" / "a" / "0", (1e9, 1e9))
    DirectoryStore(at / "d")["a/0"] = b"old"
    result = copy_store(PrefixStore(source, "a"), PrefixStore(make(at / "d"), "a"), if_exists="differ")
    assert (result.n_copied, result.notes, DirectoryStore(at / "d")["a/0"]) == (1, [], b"new")
