"""Stores in which a value answers to a name that no listing shows: no verb takes it for two values, none is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import peers
from zarrstore import (
    DictStore,
    DirectoryStore,
    FSStore,
    N5View,
    NestedDirectoryStore,
    OverlayStore,
    PrefixStore,
    SplitStore,
    consolidate_metadata,
    copy_store,
    init_array,
    migrate_2to3,
    rename,
)
from zarrstore.errors import InvalidKeyError, UnsupportedOperation
from zarrstore.tools.move import move
from zarrstore.tools.respell import respell
from zarrstore.wrappers.v2view import V2View
from zarrstore.wrappers.v3view import V3View

SPELLED: dict[str, Callable[[Path], Any]] = {
    "V2View": lambda folder: V2View({}),
    "V2View, nested": lambda folder: V2View({}, "/"),
    "V2View, in a directory": lambda folder: V2View(DirectoryStore(folder / "d")),
    "N5View": lambda folder: N5View({}),
    "N5View, nested": lambda folder: N5View({}, "/"),
    "NestedDirectoryStore": lambda folder: NestedDirectoryStore(folder / "n"),
    "PrefixStore": lambda folder: PrefixStore(N5View({}), "p"),
    "OverlayStore": lambda folder: OverlayStore(NestedDirectoryStore(folder / "n"), {}),
    "SplitStore": lambda folder: SplitStore({}, NestedDirectoryStore(folder / "n")),
}
FOLDED: dict[str, Callable[[Path], Any]] = {
    "DirectoryStore": lambda folder: DirectoryStore(folder / "d", normalize_keys=True),
    "FSStore": lambda folder: FSStore(str(folder / "d"), normalize_keys=True),
}


def source(separator: str, path: str = "a", declared: bool = True) -> dict[str, bytes]:
    store: dict[str, bytes] = {}
    stated = separator if declared else None
    init_array(store, (4, 4), (2, 2), "u1", None, 0, path=path, dimension_separator=stated)  # type: ignore[arg-type]
    store[f"{path}/0{separator}1"] = b"1234"
    return store


def other(key: str) -> str:
    return key.replace("0.1", "0/1") if "0.1" in key else key.replace("0/1", "0.1")


@pytest.mark.parametrize("separator", [".", "/"])
@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("name", SPELLED)
def test_a_second_synchronisation_keeps_every_chunk_or_is_refused(
    name: str, separator: str, declared: bool, tmp_path: Path
) -> None:
    store = source(separator, declared=declared)
    dest = SPELLED[name](tmp_path)
    copy_store(store, dest)
    kept = {key: dest[key] for key in dest}
    for _ in range(2):
        refusal = None
        try:
            copy_store(store, dest, delete=True, if_exists="differ")
        except UnsupportedOperation as exc:
            refusal = str(exc)
        assert refusal is None or ("another spelling" in refusal and {key: dest[key] for key in dest} == kept)
        assert dest[f"a/0{separator}1"] == b"1234"


@pytest.mark.parametrize("name", FOLDED)
def test_a_second_synchronisation_into_lower_case_keeps_every_chunk(name: str, tmp_path: Path) -> None:
    store = source(".", "A")
    dest = FOLDED[name](tmp_path)
    copy_store(store, dest)
    with pytest.raises(UnsupportedOperation, match="another spelling"):
        copy_store(store, dest, delete=True, if_exists="differ")
    assert dest["A/0.1"] == b"1234"
    with pytest.raises(FileExistsError):
        copy_store(store, dest)


@pytest.mark.parametrize("separator", [".", "/"])
@pytest.mark.parametrize("name", SPELLED)
def test_a_copy_sees_what_is_there_under_the_other_spelling(name: str, separator: str, tmp_path: Path) -> None:
    dest = SPELLED[name](tmp_path)
    copy_store(source(separator), dest)
    changed = source(separator) | {f"a/0{separator}1": b"5678"}
    only_chunks = {"excludes": r"/\.z|^\.z"}
    with pytest.raises(FileExistsError):
        copy_store(changed, dest, **only_chunks)  # type: ignore[arg-type]
    assert copy_store(changed, dest, if_exists="skip", **only_chunks)[:2] == (0, 1)  # type: ignore[arg-type]
    assert dest[f"a/0{separator}1"] == b"1234"
    assert copy_store(changed, dest, if_exists="differ", **only_chunks)[:2] == (1, 0)  # type: ignore[arg-type]
    assert dest[f"a/0{separator}1"] == b"5678"


@pytest.mark.parametrize("separator", [".", "/"])
@pytest.mark.parametrize("name", SPELLED)
def test_chunks_change_their_spelling_whole_or_not_at_all(name: str, separator: str, tmp_path: Path) -> None:
    dest = SPELLED[name](tmp_path)
    copy_store(source("."), dest)
    try:
        respell(dest, separator)
    except UnsupportedOperation:
        pass
    shown = [key for key in dest if key in ("a/0.1", "a/0/1")]
    assert [dest[key] for key in shown] == [b"1234"]


@pytest.mark.parametrize("verb", [rename, move])
@pytest.mark.parametrize("name", SPELLED)
def test_a_chunk_is_not_renamed_to_itself_and_deleted(name: str, verb: Any, tmp_path: Path) -> None:
    dest = SPELLED[name](tmp_path)
    copy_store(source("."), dest)
    listed = next(key for key in dest if key in ("a/0.1", "a/0/1"))
    try:
        verb(dest, listed, other(listed))
    except FileExistsError:
        pass
    assert b"1234" in (dest.get(listed), dest.get(other(listed)))


def test_chunks_shown_as_version_3_are_respelled_below() -> None:
    store = source(".")
    respell(V3View(store), "/")
    assert V3View(store)["a/c/0/1"] == b"1234"


# What is stored has another form than what is shown -------------------------------------------------------------------


def n5() -> dict[str, bytes]:
    inner: dict[str, bytes] = {}
    copy_store(source("."), N5View(inner))
    return inner


@pytest.mark.parametrize("dry_run", [True, False])
def test_what_is_not_version_2_is_not_migrated_in_place(dry_run: bool) -> None:
    inner = n5()
    before = dict(inner)
    for store in (N5View(inner), PrefixStore(N5View(inner), ""), OverlayStore(N5View(inner), {})):
        with pytest.raises(UnsupportedOperation, match="pass dest"):
            migrate_2to3(store, dry_run=dry_run)
    assert inner == before
    below: dict[str, bytes] = {}
    migrate_2to3(source("."), below)
    with pytest.raises(UnsupportedOperation, match="pass dest"):
        migrate_2to3(V2View(below), dry_run=dry_run)
    dest: dict[str, bytes] = {}
    migrate_2to3(N5View(inner), dest)
    assert dest["a/0.1"] == b"1234"


def test_an_n5_hierarchy_gets_no_document_that_would_make_a_zarr_hierarchy_of_it() -> None:
    inner = n5()
    before = dict(inner)
    view = N5View(inner)
    for key in ("zarr.json", "a/zarr.json", ".zmetadata"):
        with pytest.raises(InvalidKeyError, match="no such document"):
            view[key] = b"{}"
        with pytest.raises(InvalidKeyError, match="no such document"):
            view.setitems({key: b"{}"})
    with pytest.raises(InvalidKeyError, match="no such document"):
        consolidate_metadata(view)
    assert inner == before


def test_a_listing_answers_for_all_keys_where_no_value_has_two_names() -> None:
    class Counted(DictStore):
        asked = 0

        def _contains(self, key: str) -> bool:
            self.asked += 1
            return super()._contains(key)

    dest = Counted()
    copy_store(source("."), dest)
    assert dest.asked == 0


# Deleted one by one, as zarr 2 deletes in any mapping -----------------------------------------------------------------


@pytest.mark.parametrize("separator", [".", "/"])
@pytest.mark.parametrize("view", [V2View, N5View, V3View])
def test_what_a_view_lists_can_be_deleted_key_by_key_in_that_order(view: Any, separator: str) -> None:
    store = source(separator, "g/a") | source(separator, "b") | {"g/.zattrs": b'{"a": 1}', "b/.zattrs": b'{"a": 1}'}
    if view is V2View:
        consolidate_metadata(store)
    inner: dict[str, bytes] = {}
    if view is V3View:
        inner.update(store)
    else:
        copy_store(store, view(inner))
    shown = view(inner)
    for key in list(shown):
        del shown[key]
    assert (sorted(shown), inner) == ([], {})


def test_zarr_2_overwrites_an_array_through_a_view(tmp_path: Path) -> None:
    found = peers.run(
        "zarr2",
        """
        import json, warnings, zarr, numcodecs, numpy as np
        warnings.simplefilter("ignore")
        from zarrstore import N5View, V2View
        done = []
        for inner in ({}, {}):
            view = V2View(inner) if not done else N5View(inner)
            for n in (5, 4):
                array = zarr.create(shape=n, chunks=2, dtype="i4", store=view, path="g/v", overwrite=True, fill_value=0)
                array[:] = n
                array.attrs["n"] = n
            done.append([array[:].tolist(), len(inner)])
        # Objects of variable length, whose last chunk is not full, by zarr 2's own door.
        for codec, values in (
            (numcodecs.VLenBytes(), [b"a", b"bc", b"", b"d", b"\\xff"]),
            (numcodecs.VLenUTF8(), ["a", "bc", "", "d", "\\u00e9"]),
        ):
            inner = {}
            for fill in (None, 0):
                array = zarr.create(
                    shape=5, chunks=2, dtype=object, object_codec=codec, store=V2View(inner), path="v", overwrite=True,
                    fill_value=fill,
                )
                array[:] = np.array(values, dtype=object)
                again = zarr.open_array(V2View(inner), path="v", mode="r")
                done.append([again[:].tolist() == values, again[-1:].tolist() == values[-1:], len(inner)])
        print(json.dumps(done))
        """,
    )
    assert found == [[[4] * 4, 5], [[4] * 4, 5]] + [[True, True, 5]] * 4
