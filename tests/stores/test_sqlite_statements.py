"""SQLiteStore: which statements its calls are, what it promises in each mode, and when it looks for space."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from zarrstore.stores.sqlite import SQLiteStore, rows
from zarrstore.stores.sqlite.connections import RESERVE, Connections, is_open_here


@pytest.fixture
def traced(tmp_path: Path) -> Iterator[tuple[sqlite3.Connection, list[str]]]:
    """Yield a connection to an empty store, and the statements that it will run."""
    SQLiteStore(tmp_path / "a.sqlite").close()
    connection = sqlite3.connect(tmp_path / "a.sqlite", isolation_level=None)
    connection.text_factory = bytes
    statements: list[str] = []
    connection.set_trace_callback(lambda statement: statements.append(statement[:60]))
    yield connection, statements
    connection.close()


def made_empty_first(statements: list[str]) -> int:
    return sum("zeroblob" in statement for statement in statements)


def test_only_large_values_are_written_piece_by_piece(traced: tuple[sqlite3.Connection, list[str]]) -> None:
    connection, statements = traced
    small, large = bytes(10), bytes(rows.LARGE)
    for value, wanted in ((small, 0), (large, 1)):
        statements.clear()
        rows.write(connection, "a", value)
        assert made_empty_first(statements) == wanted
    for items, wanted in (([("a", small), ("b", small)], 0), ([("a", small), ("b", large), ("c", large)], 2)):
        statements.clear()
        rows.write_all(connection, items)
        assert made_empty_first(statements) == wanted
        assert dict(connection.execute("SELECT k, v FROM zarr")) == {k.encode(): v for k, v in items}
        connection.execute("DELETE FROM zarr")


def test_values_of_a_batch_of_small_ones_are_set_by_one_prepared_statement() -> None:
    class Recorder:
        calls: list[str] = []

        def execute(self, query: str, values: object) -> None:
            self.calls.append("execute")

        def executemany(self, query: str, values: object) -> None:
            self.calls.append("executemany")

    rows.write_all(Recorder(), [("a", b"1"), ("b", b"2")])  # type: ignore[arg-type]
    assert Recorder.calls == ["executemany"]


def test_an_absent_key_takes_one_statement(traced: tuple[sqlite3.Connection, list[str]]) -> None:
    connection, statements = traced
    with pytest.raises(KeyError):
        rows.read(connection, "absent", "label")
    assert len(statements) == 1


# What each mode promises ----------------------------------------------------------------------------------------------


def test_each_mode_promises_what_it_keeps(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    SQLiteStore(path).close()
    flags = "writable", "erasable", "ranged", "durable_flush", "process_safe"
    wanted = {
        "writing": (True, True, True, True, True),
        "readonly": (False, False, True, True, True),
        "immutable": (False, False, True, True, False),
        "memory": (True, True, True, False, False),
    }
    stores = {
        "writing": SQLiteStore(path),
        "readonly": SQLiteStore(path, readonly=True),
        "immutable": SQLiteStore(path, immutable=True),
        "memory": SQLiteStore(":memory:"),
    }
    found = {}
    for name, store in stores.items():
        with store:
            found[name] = tuple(getattr(store.capabilities, flag) for flag in flags)
    assert found == wanted


def test_whether_a_database_is_open_here_is_asked_of_files_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(":memory:").write_bytes(b"")
    with SQLiteStore(":memory:"), SQLiteStore(tmp_path / "a.sqlite") as store:
        assert is_open_here(store.path)
        assert not is_open_here(str(tmp_path / ":memory:"))
        assert not is_open_here(str(tmp_path / "absent"))


def test_what_stands_in_the_way_of_opening_is_named_by_mode(tmp_path: Path) -> None:
    path = str(tmp_path / "a.sqlite")
    SQLiteStore(path).close()
    for readonly, immutable, wanted in ((True, False, True), (True, True, False), (False, False, False)):
        reason = Connections("label", path, readonly, immutable, 1.0, {})._cannot_open()
        assert isinstance(reason, PermissionError)
        assert ("immutable=True opens it" in str(reason)) is wanted


# Space ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def emptied(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record when the log is emptied to make room."""
    calls: list[str] = []
    genuine = Connections._empty_log

    def recording(self: Connections) -> None:
        calls.append("emptied")
        genuine(self)

    monkeypatch.setattr(Connections, "_empty_log", recording)
    return calls


def free(monkeypatch: pytest.MonkeyPatch, nbytes: int) -> None:
    monkeypatch.setattr(Connections, "_space", lambda self: nbytes)


def test_with_room_nothing_is_moved_and_without_a_value_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, emptied: list[str]
) -> None:
    with SQLiteStore(tmp_path / "a.sqlite") as store:
        free(monkeypatch, 2 * 101 + RESERVE)  # the value and its key
        store["a"] = bytes(100)
        assert emptied == []
        free(monkeypatch, 2 * 101 + RESERVE - 1)
        with pytest.raises(OSError, match="are kept for deletes") as caught:
            store["b"] = bytes(100)
        assert (caught.value.errno, emptied, dict(store)) == (errno.ENOSPC, ["emptied"], {"a": bytes(100)})
        del store["a"]


def test_a_database_with_free_pages_needs_room_for_the_log_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SQLiteStore(tmp_path / "a.sqlite") as store:
        store["large"] = bytes(1 << 20)
        del store["large"]
        free(monkeypatch, 101 + RESERVE // 2)
        store["a"] = bytes(100)
        free(monkeypatch, 101 + RESERVE // 2 - 1)
        with pytest.raises(OSError, match="are kept for deletes"):
            store["b"] = bytes(100)


def test_memory_needs_no_room_on_a_disk(monkeypatch: pytest.MonkeyPatch, emptied: list[str]) -> None:
    free(monkeypatch, 0)
    with SQLiteStore(":memory:") as store:
        store["a"] = bytes(100)
    assert emptied == []
