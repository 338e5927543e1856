"""Schemas by others: what would run without an end, or give one key two values, does not open."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from zarrstore.errors import DamagedStoreError
from zarrstore.stores.sqlite import SQLiteStore

ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c"
TABLE = "CREATE TABLE zarr(k TEXT PRIMARY KEY, v BLOB)"


def made(folder: Path, *statements: str) -> Path:
    path = folder / "a.sqlite"
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()
    return path


@pytest.mark.parametrize(
    ("statements", "reason"),
    [
        (["CREATE TABLE other(x)", f"CREATE VIEW zarr AS SELECT x AS k, x AS v FROM ({ENDLESS})"], "no table 'zarr'"),
        (["CREATE VIRTUAL TABLE zarr USING fts5(k, v)"], "virtual"),
        (["CREATE TABLE zarr(a, b)"], "no columns k and v"),
        (["CREATE TABLE zarr(k TEXT PRIMARY KEY, v AS (zeroblob(900000000)))"], "no columns k and v"),
        (["CREATE TABLE zarr(w, k TEXT AS ('../x') UNIQUE, v BLOB)"], "no columns k and v"),
        (["CREATE TABLE zarr(k TEXT, v BLOB)"], "no unique key"),
        (["CREATE TABLE zarr(k TEXT, v BLOB)", "CREATE UNIQUE INDEX i ON zarr(k) WHERE k > 'm'"], "no unique key"),
        (["CREATE TABLE zarr(k TEXT, v BLOB, PRIMARY KEY(k, v))"], "no unique key"),
        (["CREATE TABLE zarr(k TEXT COLLATE NOCASE PRIMARY KEY, v BLOB)"], "no unique key"),
        (["CREATE TABLE zarr(k INTEGER PRIMARY KEY, v BLOB)"], "no unique key"),
        (["CREATE TABLE zarr(k TEXT PRIMARY KEY, v BLOB) WITHOUT ROWID"], "no numbers"),
        (["CREATE TABLE zarr(k TEXT PRIMARY KEY, v BLOB, RowId INT)"], "no numbers"),
    ],
)
@pytest.mark.parametrize("readonly", [False, True])
def test_a_table_that_is_no_mapping_of_keys_to_values_does_not_open(tmp_path, statements, reason, readonly):
    path = made(tmp_path, *statements)
    with pytest.raises(DamagedStoreError, match=reason):
        SQLiteStore(path, readonly=readonly)


def test_a_database_with_triggers_is_for_reading_only(tmp_path):
    trigger = f"CREATE TRIGGER t AFTER INSERT ON ZARR BEGIN INSERT INTO log {ENDLESS}; END"
    path = made(tmp_path, TABLE, "CREATE TABLE log(x)", "INSERT INTO zarr VALUES ('a', x'01')", trigger)
    with pytest.raises(DamagedStoreError, match="triggers"):
        SQLiteStore(path)
    assert dict(SQLiteStore(path, readonly=True)) == {"a": b"\1"}


def test_tables_that_keep_one_value_under_each_key_open(tmp_path):
    more = [
        "CREATE TABLE other(x)",
        "CREATE INDEX i ON other(x)",
        "CREATE TRIGGER t AFTER INSERT ON other BEGIN SELECT 1; END",
    ]
    for n, table in enumerate(
        [TABLE, "CREATE TABLE zarr(K TEXT UNIQUE, V, more)", 'CREATE TABLE "zarr"(v, k PRIMARY KEY)']
    ):
        (tmp_path / str(n)).mkdir()
        with SQLiteStore(made(tmp_path / str(n), table, *more)) as store:
            store.update({"a": b"1", "b": b"2" * 300_000})
            assert dict(store) == {"a": b"1", "b": b"2" * 300_000}
