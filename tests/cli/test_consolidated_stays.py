"""Verbs that change documents keep consolidated metadata true: afterwards `consolidate --check` finds nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import zarrstore
from tests.cli.test_cli import Cli, cli  # noqa: F401
from zarrstore import DirectoryStore
from zarrstore.metadata import documents
from zarrstore.tools.consolidate import check_consolidated

#: What is done -> the verb and its arguments. DOCUMENT is that of an array, in the version of the hierarchy.
CHANGES: dict[str, tuple[str, ...]] = {
    "attrs of an array": ("attrs", "TARGET", "g/a", "--set", "units=K"),
    "attrs deleted": ("attrs", "TARGET", "g/b", "--delete", "long_name"),
    "attrs of the root": ("attrs", "TARGET", "--set", "title=T"),
    "attrs of a group": ("attrs", "TARGET", "g", "--set", "title=T"),
    "put": ("put", "TARGET", "g/a/DOCUMENT", "FILE", "--overwrite"),
    "put of a new document": ("put", "TARGET", "g/c/DOCUMENT", "FILE"),
    "put of a chunk": ("put", "TARGET", "g/a/7", "FILE"),
    "rm of an array": ("rm", "TARGET", "g/a", "-y"),
    "rm of a group": ("rm", "TARGET", "g", "-y"),
    "rm of a document": ("rm", "TARGET", "g/a/DOCUMENT", "-y"),
    "mv": ("mv", "TARGET", "g/a", "g/z"),
}


def hierarchy(path: Path, version: int) -> None:
    store = DirectoryStore(path)
    zarrstore.init_group(store)
    zarrstore.init_group(store, path="g")
    for name in ("a", "b"):
        zarrstore.init_array(store, 4, 2, "<i4", path=f"g/{name}", compressor=None)
        store[f"g/{name}/.zattrs"] = b'{"long_name": "x"}'
        store[f"g/{name}/0"] = bytes(8)
    if version == 3:
        zarrstore.migrate_2to3(store, remove_v2=True)
    zarrstore.consolidate_metadata(store)
    assert not check_consolidated(store)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("change", CHANGES)
def test_after_a_change_consolidated_metadata_says_what_the_documents_say(
    cli: Any,  # noqa: F811
    tmp_path: Path,
    change: str,
    version: int,
) -> None:
    target = tmp_path / "a.zarr"
    hierarchy(target, version)
    name = documents.ZARRAY if version == 2 else documents.ZARR_JSON
    store = DirectoryStore(target)
    document = documents.loads(store[f"g/a/{name}"], name)
    (tmp_path / "file").write_bytes(documents.dumps({**document, "shape": [8]}))
    words = {"TARGET": str(target), "FILE": str(tmp_path / "file")}
    before = dict(store)
    result = cli(*(words.get(arg, arg.replace("DOCUMENT", name)) for arg in CHANGES[change]))
    assert result.code == 0, result.err
    assert dict(store) != before
    assert not check_consolidated(store)
    assert cli("consolidate", str(target), "--check").code == 0


@pytest.mark.parametrize("args", [("attrs", "g/a", "--set", "units=K"), ("rm", "g/a", "-y")])
def test_where_consolidated_metadata_is_damaged_nothing_is_changed(
    cli: Any,  # noqa: F811
    tmp_path: Path,
    args: tuple[str, ...],
) -> None:
    target = tmp_path / "a.zarr"
    hierarchy(target, 2)
    store = DirectoryStore(target)
    store[".zmetadata"] = b"{"
    before = dict(store)
    result = cli(args[0], str(target), *args[1:])
    assert result.code != 0
    assert ".zmetadata" in result.err
    assert dict(store) == before
