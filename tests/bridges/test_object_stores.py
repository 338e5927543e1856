"""obstore and OpenDAL through the whole suite, and the traps of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from zarrstore.errors import InvalidKeyError, StoreReadError
from zarrstore.testing import SEGMENTS, StoreConformance, tree

obstore = pytest.importorskip("obstore", reason="needs obstore: pip install zarrstore[obstore]")
opendal = pytest.importorskip("opendal", reason="needs opendal: pip install zarrstore[opendal]")

from zarrstore.bridges.obstore import ObstoreStore  # noqa: E402
from zarrstore.bridges.opendal import OpenDALStore  # noqa: E402


class TestObstoreInMemory(StoreConformance):
    pickles = False  # obstore's memory cannot be pickled

    def make_store(self, tmp_path: Path) -> Any:
        return ObstoreStore(obstore.store.MemoryStore())

    def tree(self) -> dict[str, bytes]:
        # obstore has no control characters in names.
        return {key: value for key, value in super().tree().items() if key.isprintable()}

    def test_a_control_character_is_refused_in_words(self, store: Any) -> None:
        assert "line\nbreak" not in store
        with pytest.raises(InvalidKeyError, match="obstore cannot hold it"):
            store["line\nbreak"] = b"1"


class TestOpenDALInMemory(StoreConformance):
    pickles = False  # an operator on memory unpickles empty

    def make_store(self, tmp_path: Path) -> Any:
        return OpenDALStore(opendal.Operator("memory"))


@pytest.fixture(params=["obstore", "opendal"])
def local(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    (tmp_path / "root").mkdir()
    if request.param == "obstore":
        return ObstoreStore(obstore.store.LocalStore(tmp_path / "root"))
    return OpenDALStore(opendal.Operator("fs", root=str(tmp_path / "root")))


def test_local_files_hold_the_tree_and_are_plain_files(local: Any, tmp_path: Path) -> None:
    items = {key: value for key, value in tree(1000).items() if key != "line\nbreak"}
    local.update(items)
    assert dict(local.items()) == items
    assert (tmp_path / "root/foo/oof/x").read_bytes() == b"22"
    assert local.listdir("foo") == ["bar", "foo", "oof"]
    local.rmdir("foo")
    assert sorted(local) == sorted(key for key in items if not key.startswith("foo/"))
    local.rename("uns", "b")
    assert local["b/names"] == b"88888888"


def test_directories_and_what_lies_below_a_value_are_absent(local: Any) -> None:
    local["a/b"] = b"1"
    for key in ("a", "a/b/c", "absent"):
        assert key not in local
        assert local.get(key) is None
        with pytest.raises(KeyError):
            del local[key]
    assert dict(local.items()) == {"a/b": b"1"}


def test_ranges_are_clipped_where_the_libraries_raise(local: Any) -> None:
    local["v"] = b"0123456789"
    local["e"] = b""
    assert local.getrange("v", 5, 99) == b"56789"
    assert local.getrange("v", 99, 100) == b""
    assert local.getrange("v", 3, 3) == b""
    assert local.getsuffix("v", 99) == b"0123456789"
    assert local.getsuffix("v", 0) == b""
    assert local.getsuffix("e", 5) == b""
    assert local.getrange("e", 0, 5) == b""
    with pytest.raises(KeyError):
        local.getrange("absent", 3, 3)
    with pytest.raises(KeyError):
        local.getsuffix("absent", 0)


def test_a_broken_place_is_never_an_absent_key(tmp_path: Path) -> None:
    store = ObstoreStore(
        obstore.store.HTTPStore(
            "http://127.0.0.1:9/",
            client_options={"allow_http": True},
            retry_config={"max_retries": 0, "retry_timeout": __import__("datetime").timedelta(seconds=1)},
        )
    )
    with pytest.raises(StoreReadError):
        store["a"]
    with pytest.raises(StoreReadError):
        "a" in store  # noqa: B015
    assert SEGMENTS
