"""Values in a dict, under their whole keys."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any

from zarrstore import keys as k
from zarrstore.base import Capabilities, Entry, Store
from zarrstore.values import as_bytes

__all__ = ["DictStore", "MemoryStore"]


class DictStore(Store):
    """Keep every value in memory, as a copy that nobody else can change.

    Parameters
    ----------
    root : MutableMapping, optional
        Where the values are kept, under their whole keys: the store reads and writes this object itself. A mapping
        nested as zarr 2's DictStore nested it is flattened in place first.
    cls : callable, default dict
        Makes the mapping when no `root` is given.
    dimension_separator : {'.', '/'}, optional
        What `init_array` records where the caller names none.

    Notes
    -----
    Cost: one look-up in a dict a call; `listdir` looks at the children only (the first one builds the index).
    Threads: safe. Processes: each has its own copy. Pickles with its content. Source: zarr 2.2 DictStore and 2.4
    MemoryStore. Deviations: the root is flat, so a value may stand beside a directory of its name, and nothing is
    deleted to make room.

    Examples
    --------
    >>> store = DictStore()
    >>> store["foo/bar"] = bytearray(b"data")
    >>> store["foo/bar"], store.listdir(), store.root
    (b'data', ['foo'], {'foo/bar': b'data'})
    """

    capabilities = Capabilities(blocking=False)

    def __init__(
        self,
        root: MutableMapping[str, Any] | None = None,
        cls: Callable[[], MutableMapping[str, Any]] = dict,
        dimension_separator: str | None = None,
    ) -> None:
        self.cls = cls
        # Only a mapping that nobody else holds may be indexed: another writer would not tell the index.
        self._private = root is None
        self.root: MutableMapping[str, Any] = cls() if root is None else _flattened(root)
        self._children: dict[str, dict[str, None]] | None = None
        self._lock = threading.Lock()
        self._dimension_separator = dimension_separator

    def __repr__(self) -> str:
        return f"{type(self).__name__}(<{len(self.root)} values>)"

    def _place(self) -> object:
        return self.root, self.cls

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__, "_children": None}
        del state["_lock"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def _get(self, key: str) -> bytes:
        return self.root[key]  # type: ignore[no-any-return]

    def _contains(self, key: str) -> bool:
        return key in self.root

    def _set(self, key: str, value: bytes) -> None:
        self.root[key] = value
        if self._children is not None:
            self._note(key)

    def _delete(self, key: str) -> None:
        del self.root[key]
        if self._children is not None:
            self._note(key)

    def _keys(self, path: str) -> Iterable[str]:
        found = self._snapshot()
        return [key for key in found if k.is_below(key, path)] if path else found

    def _details(self, path: str) -> Iterable[Entry]:
        for key in self._keys(path):
            value = self.root.get(key)
            if value is not None:
                yield Entry(key, len(value))

    def _snapshot(self) -> list[str]:
        # list(dict) is one step of the interpreter, so a listing never meets a writer half way.
        return list(self.root)

    def _count(self) -> int:
        return len(self.root)

    def _nbytes(self, key: str) -> int:
        return len(self.root[key])

    def _clear(self) -> None:
        with self._lock:
            self.root.clear()
            self._children = None

    def _listdir(self, path: str) -> Iterable[str]:
        if not self._private:
            return super()._listdir(path)
        with self._lock:
            if self._children is None:
                # Published before the keys are read: a writer that the reading misses finds it and notes its key.
                self._children = {}
                for key in self._snapshot():
                    self._enter(self._children, key)
            return list(self._children.get(path, ()))

    def _note(self, key: str) -> None:
        """Bring the index in line with what `root` now says of `key`, whoever else is writing it."""
        with self._lock:
            index = self._children
            if index is None:
                return
            if key in self.root:
                self._enter(index, key)
                return
            while key and key not in index:  # neither a value nor a directory any more
                above = k.parent(key)
                names = index.get(above, {})
                names.pop(k.name(key), None)
                if names:
                    return
                index.pop(above, None)  # also below a value: deleted in its turn, it must not be taken for a directory
                if above in self.root:
                    return
                key = above

    @staticmethod
    def _enter(index: dict[str, dict[str, None]], key: str) -> None:
        while key:
            above = k.parent(key)
            names = index.setdefault(above, {})
            name = k.name(key)
            if name in names:
                return
            names[name] = None
            key = above


class MemoryStore(DictStore):
    """`DictStore` under the name that zarr 2.4 gave it.

    Examples
    --------
    >>> MemoryStore()["a"]
    Traceback (most recent call last):
    KeyError: 'a'
    """


def _flattened(root: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Return `root` with nested mappings made flat and values made `bytes`, in place."""
    flat = dict(_leaves(root, ""))
    if any(type(value) is not bytes for value in root.values()):
        root.clear()
        root.update(flat)
    return root


def _leaves(node: Mapping[str, Any], path: str) -> Iterable[tuple[str, bytes]]:
    for name, value in node.items():
        key = k.join(path, name)
        if isinstance(value, Mapping):
            yield from _leaves(value, key)
        else:
            yield k.check_key(key), as_bytes(value)
