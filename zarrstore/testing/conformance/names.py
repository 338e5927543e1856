"""Names that no store may take, and names that a store must keep apart or refuse."""

from __future__ import annotations

from contextlib import suppress

import pytest

from zarrstore.base import Store
from zarrstore.errors import InvalidKeyError, InvalidPathError
from zarrstore.testing.conformance.making import StoreMaking, refuses
from zarrstore.testing.trees import HOSTILE_KEYS, ODD_NAMES

__all__ = ["NameTests"]


class NameTests(StoreMaking):
    """Hostile and odd keys and paths."""

    def test_hostile_keys_are_absent_to_read_and_refused_to_write(self, full: Store) -> None:
        before = dict(full.items()) if full.capabilities.listable else None
        for key in HOSTILE_KEYS:
            assert key not in full, key
            assert full.get(key) is None, key  # type: ignore[call-overload]
            refuses(InvalidKeyError, full.__getitem__, key)
            refuses(InvalidKeyError, full.getrange, key, 0)
            refuses(InvalidKeyError, full.__setitem__, key, b"x")
            refuses(InvalidKeyError, full.__delitem__, key)
        assert dict(full.getitems(HOSTILE_KEYS)) == {}  # type: ignore[arg-type]
        if full.capabilities.writable:
            for key in HOSTILE_KEYS:
                if _hashable(key):
                    refuses(InvalidKeyError, full.setitems, {"fine": b"1", key: b"2"})
            full.delitems(HOSTILE_KEYS)  # type: ignore[arg-type]
        assert before is None or dict(full.items()) == before

    def test_hostile_paths_name_nothing_or_are_refused(self, full: Store) -> None:
        if not full.capabilities.listable:
            return
        before = dict(full.items())
        for path in HOSTILE_KEYS:
            if not isinstance(path, str):
                continue
            named = [part for part in path.replace("\\", "/").split("/") if part]
            if "." in named or ".." in named:
                for act in (full.listdir, full.rmdir, full.getsize, full.keys_below):
                    refuses(InvalidPathError, act, path)
                refuses(InvalidPathError, full.rename, path, "x")
                refuses(InvalidPathError, full.rename, "foo", path)
            elif named and "/".join(named) not in {"foo", "foo/bar", "x", "y"}:
                # What is left normalises to a name that nothing has, as "/etc/passwd" does to "etc/passwd".
                assert full.listdir(path) == []
                assert full.getsize(path) == 0
                if full.capabilities.erasable:
                    full.rmdir(path)
                    refuses(KeyError, full.rename, path, "x")
        assert dict(full.items()) == before

    @pytest.mark.parametrize("place", ["{}", "{}/x"], ids=["name", "directory"])
    def test_names_that_look_alike_are_kept_apart_or_refused(self, store: Store, place: str) -> None:
        if not self._can_write(store):
            return
        expected: dict[str, bytes] = {}
        refused = []
        for n, name in enumerate(ODD_NAMES):
            key, value = place.format(name), str(n).encode()
            try:
                store[key] = value
            except Exception as exc:  # a store may refuse what it cannot keep, by any error but a plain KeyError
                if type(exc) is KeyError:
                    raise
                refused.append((key, exc))
            else:
                expected[key] = value
        assert len(expected) >= len(ODD_NAMES) // 2, f"a store that refuses {len(refused)} names: {refused}"
        assert {key: store.get(key) for key in expected} == expected
        assert [key for key, _ in refused if key in store] == []
        if self._can_list(store):
            assert sorted(store.items()) == sorted(expected.items())
            assert len(store) == len(expected)
            assert store.listdir("") == sorted({key.partition("/")[0] for key in expected})
        if not self._can_erase(store, "a" if "a" in expected else "a/x"):
            return
        for key in list(expected)[::2]:
            del store[key]
            del expected[key]
        assert {key: store.get(key) for key in expected} == expected
        if store.capabilities.listable:
            assert sorted(store.items()) == sorted(expected.items())
        store.delitems(list(expected))
        assert [key for key in expected if key in store] == []

    def test_case_is_kept_apart_where_the_store_says_so(self, store: Store) -> None:
        if not self._can_write(store):
            return
        store["name"] = b"1"
        try:
            store["NAME"] = b"2"
        except InvalidKeyError:
            are_two = False
        else:
            are_two = store["name"] == b"1"
        assert are_two == store.capabilities.case_sensitive

    def test_odd_names_are_moved_and_removed_with_their_directory(self, store: Store) -> None:
        if not (self._can_write(store) and self._can_list(store)):
            return
        store["a"] = b""
        if not self._can_erase(store, "a"):
            return
        del store["a"]
        expected: dict[str, bytes] = {}
        for n, name in enumerate((*ODD_NAMES[::4], *ODD_NAMES[-9:])):  # each costs a server three requests
            with suppress(Exception):  # see the test above
                store[f"from/{name}"] = b"%d" % n
                expected[f"to/{name}"] = b"%d" % n
        store.rename("from", "to")
        assert dict(store.items()) == expected
        store.rmdir("to")
        assert list(store) == []


def _hashable(key: object) -> bool:
    try:
        hash(key)
    except TypeError:
        return False
    return True
