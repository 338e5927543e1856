"""Values in a dict, under their whole keys."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any, Literal

from zarrstore import keys as k
from zarrstore.base import Capabilities, Entry, Store
from zarrstore.stores._process import Resource
from zarrstore.values import as_bytes

__all__ = ["DictStore", "MemoryStore"]


class _Index(Resource):
    """The names in each directory of a DictStore, kept while values are set and deleted.

    Parameters
    ----------
    root : mapping
        The values. Only the store writes it: another writer would not call `update`.
    """

    def __init__(self, root: MutableMapping[str, Any]) -> None:
        super().__init__("the index of a DictStore")
        self.root = root
        #: By directory. None: unknown, built by the next listing. Whoever is interrupted in a change of it sets it so.
        self.names: dict[str, dict[str, None]] | None = None
        self.register()

    def after_fork_in_child(self) -> None:
        if not self.quiet:  # another thread was in a change that did not end
            self.names = None

    def children(self, path: str) -> list[str]:
        """Return the names in a directory."""
        with self.turn:
            return list(self._built().get(path, ()))

    def below(self, path: str) -> list[str]:
        """Return the keys below a directory. Cost: in proportion to their number."""
        with self.turn:
            names = self._built()
            keys, pending = [], [path]
            while pending:
                at = pending.pop()
                for name in list(names.get(at, ())):
                    key = k.join(at, name)
                    if key in self.root:
                        keys.append(key)
                    if key in names:
                        pending.append(key)
            return keys

    def put(self, key: str, value: bytes) -> None:
        """Keep a value, and its name with it: no listing sees one without the other.

        A reader can see a value as soon as it is in `root`, long before `put` returns. If the name came later, an
        `rmdir` that begins after that reader would miss the key.
        """
        try:
            with self.turn:
                self.root[key] = value
                if self.names is not None:
                    _enter(self.names, key)
        except BaseException:
            self.names = None
            raise

    def remove(self, key: str) -> None:
        """Forget a value and its name; KeyError if it is absent."""
        try:
            with self.turn:
                del self.root[key]
                if self.names is not None:
                    self._leave(self.names, key)
        except KeyError:
            raise
        except BaseException:
            self.names = None
            raise

    def clear(self) -> None:
        """Forget all values and names."""
        with self.turn:
            self.names = None  # first: Ctrl-C may come between the two
            self.root.clear()

    def _built(self) -> dict[str, dict[str, None]]:
        if self.names is None:
            names: dict[str, dict[str, None]] = {}
            for key in list(self.root):
                _enter(names, key)
            self.names = names
        return self.names

    def _leave(self, names: dict[str, dict[str, None]], key: str) -> None:
        while key and key not in names:  # neither a value nor a directory any more
            above = k.parent(key)
            siblings = names.get(above, {})
            siblings.pop(k.name(key), None)
            if siblings:
                return
            names.pop(above, None)  # also below a value, which would otherwise count as a directory once it is deleted
            if above in self.root:
                return
            key = above


def _enter(names: dict[str, dict[str, None]], key: str) -> None:
    while key:
        above = k.parent(key)
        siblings = names.setdefault(above, {})
        name = k.name(key)
        if name in siblings:
            return
        siblings[name] = None
        key = above


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
    Cost: one look-up in a dict a call; `listdir`, `rmdir` and `keys_below` look at what is below the path only (the
    first of them builds an index of all keys; with a `root` of the caller's, each goes over all keys). A buffer is
    copied once. Threads: safe. Fork: a child has its own copy. Pickles with its content. Source: zarr 2.2 DictStore and
    2.4 MemoryStore. Deviations: the root is flat, so a value may stand beside a directory of its name, and nothing is
    deleted to make room.

    Examples
    --------
    >>> store = DictStore()
    >>> store["foo/bar"] = bytearray(b"data")
    >>> store["foo/bar"], store.listdir(), store.root
    (b'data', ['foo'], {'foo/bar': b'data'})
    """

    capabilities = Capabilities(blocking=False)
    # A buffer is copied by the set itself.
    takes_buffers = True

    def __init__(
        self,
        root: MutableMapping[str, Any] | None = None,
        cls: Callable[[], MutableMapping[str, Any]] = dict,
        dimension_separator: Literal[".", "/"] | None = None,
    ) -> None:
        self.cls = cls
        # Only a mapping that nobody else holds may be indexed: another writer would not update the index.
        self._private = root is None
        self.root: MutableMapping[str, Any] = cls() if root is None else _flattened(root)
        self._prepare()
        self._dimension_separator = dimension_separator

    def _prepare(self) -> None:
        self._index = _Index(self.root) if self._private else None
        #: The root if every key in it was judged when it was set, else an empty dict.
        self._values: dict[str, bytes] = self.root if self._private and type(self.root) is dict else {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}(<{len(self.root)} values>)"

    def _place(self) -> object:
        return self.root, self.cls

    def _location(self, path: str) -> tuple[object, str]:
        return id(self.root), path

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_index", "_values")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._prepare()

    # These three override the public face, for half of its cost: a key that is found was judged when it was set.

    def __getitem__(self, key: str) -> bytes:
        try:
            return self._values[key]
        except (KeyError, TypeError):
            pass
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of `key`, or `default` if it is absent."""
        try:
            return self._values[key]
        except (KeyError, TypeError):
            pass
        return super().get(key, default)

    def __contains__(self, key: object) -> bool:
        try:
            if key in self._values:
                return True
        except TypeError:
            return False
        return self._values is not self.root and super().__contains__(key)

    # The driver ----------------------------------------------------------------------------------------------------

    def _get(self, key: str) -> bytes:
        # Not root[key], which creates a value where `root` is a defaultdict.
        value = self.root.get(key)
        if value is None:
            raise KeyError(key)
        return value  # type: ignore[no-any-return]

    def _contains(self, key: str) -> bool:
        return key in self.root

    def _set(self, key: str, value: bytes | memoryview) -> None:
        kept = value if type(value) is bytes else bytes(value)
        if self._index is None:
            self.root[key] = kept
        else:
            self._index.put(key, kept)

    def _delete(self, key: str) -> None:
        if key not in self.root:
            raise KeyError(key)
        if self._index is None:
            del self.root[key]
        else:
            self._index.remove(key)

    def _set_many(self, items: Iterable[tuple[str, bytes | memoryview]]) -> None:
        for key, value in items:
            self._set(key, value)

    def _keys(self, path: str) -> Iterable[str]:
        if path and self._index is not None:
            return self._index.below(path)
        # list(dict) is one step of the interpreter, so a listing never meets a writer half way.
        keys = list(self.root)
        return [key for key in keys if k.is_below(key, path)] if path else keys

    def _details(self, path: str) -> Iterable[Entry]:
        for key in self._keys(path):
            value = self.root.get(key)
            if value is not None:
                yield Entry(key, len(value))

    def _count(self) -> int:
        return len(self.root)

    def _nbytes(self, key: str) -> int:
        return len(self.root[key])

    def _clear(self) -> None:
        if self._index is None:
            self.root.clear()
        else:
            self._index.clear()

    def _rename(self, source: str, destination: str) -> None:
        if self._index is None:
            return super()._rename(source, destination)
        with self._index.turn:  # what another thread set after its key was copied would be deleted
            super()._rename(source, destination)

    def _listdir(self, path: str) -> Iterable[str]:
        return super()._listdir(path) if self._index is None else self._index.children(path)


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
