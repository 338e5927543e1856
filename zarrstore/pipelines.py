"""URL pipelines: ``s3://bucket/x.zip|zip:inner/path|zarr3:``, a place and what is done with it, from left to right.

The first part is what `open_store` takes alone. Each other part is the name of an adapter, a colon, and a path within
what stands before it. Source: the draft of ZEP 8 and TensorStore, whose adapters ``zip``, ``zarr2``, ``zarr3``, ``n5``
and ``icechunk`` these are; ``lru`` and ``readonly`` are this package's.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote

from zarrstore import keys as k
from zarrstore import remotefile
from zarrstore.base import Store
from zarrstore.errors import DestinationExistsError, StoreNotFoundError, UnsupportedOperation
from zarrstore.kinds import KINDS, load
from zarrstore.nodes import node_at
from zarrstore.urls import without_secrets
from zarrstore.wrappers.prefix import PrefixStore
from zarrstore.wrappers.readonly import ReadOnlyStore

__all__ = ["ADAPTERS", "is_pipeline", "open_pipeline"]

_PART = re.compile(r"\|\s*([A-Za-z][A-Za-z0-9+.-]*):")
#: What an adapter needs beside this package.
_NEEDS = {"icechunk": "icechunk"}


def is_pipeline(target: object) -> bool:
    """Tell a URL pipeline from a path or a plain URL.

    Examples
    --------
    >>> is_pipeline("s3://bucket/x.zip|zip:"), is_pipeline("a|b"), is_pipeline("memory:|zarr2:a")
    (True, False, True)
    """
    return isinstance(target, str) and _PART.search(target) is not None and not os.path.exists(target)


class _Part(NamedTuple):
    """One adapter, and the path that stands behind its colon."""

    name: str
    path: str


class _Place:
    """Where a pipeline is: a store and a path in it; before the first adapter, what a URL names."""

    def __init__(
        self,
        root: str,
        mode: str,
        storage_options: Mapping[str, Any] | None,
        options: Mapping[str, Any],
        open_store: Callable[..., Store],
    ) -> None:
        self.root, more = _plain(root)
        #: The whole pipeline, for errors.
        self.target = root
        # What is within a store is erased there, and never the rest of the store.
        self.mode = mode
        self._options = dict(options)
        self._storage_options = {**more, **(storage_options or {})}
        self._open_store = open_store
        self._store: Store | None = None
        # Whether the keys are not those of the format: repositories of Icechunk appear as version 2.
        self._is_view = False
        self.path = ""

    def _opened(self, target: str, mode: str, **options: Any) -> Store:
        storage_options = self._storage_options if "://" in target and not target.startswith("zip://") else None
        return self._open_store(target, mode, storage_options=storage_options or None, **options)

    @property
    def store(self) -> Store:
        """What the pipeline has come to, opened now."""
        if self._store is None:
            mode = self.mode if self.mode in ("r", "r+") else "a"
            self._store = self._opened(self.root, mode, **self._options)
        return self._store

    def take(self, store: Store) -> None:
        """Go on from another store, at its root."""
        self._store, self.path = store, ""

    def go(self, path: str) -> None:
        """Go to a path below."""
        self.path = k.join(self.path, k.normalize_path(path)) if k.normalize_path(path) else self.path

    # What the adapters do --------------------------------------------------------------------------------------------

    def zip(self, path: str) -> None:
        """Open the archive here."""
        if self._store is None and "://" not in self.root:
            self.take(self._opened(f"zip://{os.path.expanduser(self.root)}", self._whole_mode(), **self._options))
        elif self._store is None:
            found = remotefile.split(self.root)
            if found is None:
                raise StoreNotFoundError(self.root, "a zip archive; the URL names no file")
            folder = self._open_store(found[0], "a", storage_options=self._storage_options or None)
            self._zip_within(folder, found[1])
        else:
            self._zip_within(self.store, self.path)
        self.go(path)

    def _zip_within(self, folder: Store, key: str) -> None:
        if self.mode not in ("r", "a"):
            raise UnsupportedOperation("be changed", folder, f"{key!r} is an archive in it; change a local copy")
        if not key:
            raise StoreNotFoundError(str(folder), "a zip archive; name its key before |zip:")
        self.take(KINDS["zip"].make(load("zarrstore.stores.zip:ValueRanges")(folder, key), mode="r"))

    def _whole_mode(self) -> str:
        return self.mode if self.mode in ("r", "r+") else "a"

    def lru(self, path: str) -> None:
        """Keep what is read; behind the colon a size may stand, as ``2GB``."""
        cls = load("zarrstore.wrappers.lru:LRUStoreCache")
        at, store = self.path, self.store
        self.take(cls(store, path or "256MiB"))
        self.path = at

    def readonly(self, path: str) -> None:
        """Refuse to write."""
        at = self.path
        self.take(ReadOnlyStore(self.store))
        self.path = at
        self.go(path)

    def zarr2(self, path: str) -> None:
        """Go to a node of version 2."""
        self._node(path, 2)

    def zarr3(self, path: str) -> None:
        """Go to a node of version 3."""
        self._node(path, 3)

    def _node(self, path: str, version: int) -> None:
        self.go(path)
        if self._is_view or self.mode in ("w", "w-"):
            return
        node = node_at(self.store, self.path)
        other = {2: "zarr3", 3: "zarr2"}[version]
        if node is not None and node.version != version and not self._has(version):
            raise StoreNotFoundError(
                without_secrets(self.target),
                f"version {version}; {node.key!r} is version {node.version}: |{other}:",
            )

    def _has(self, version: int) -> bool:
        names = (".zarray", ".zgroup") if version == 2 else ("zarr.json",)
        return any(k.join(self.path, name) in self.store for name in names)

    def n5(self, path: str) -> None:
        """Show the N5 hierarchy here under keys of version 2."""
        if self._store is None and "://" not in self.root:
            self.take(self._opened(f"dir://{os.path.expanduser(self.root)}", self._whole_mode(), **self._options))
        inner = PrefixStore(self.store, self.path) if self.path else self.store
        self.take(load("zarrstore.wrappers.n5view:N5View")(inner))
        self.go(path)

    def icechunk(self, path: str) -> None:
        """Open the repository here: of its main branch, or of ``@branch.NAME``, ``@tag.NAME``, ``@SNAPSHOT``."""
        if self._store is not None:
            raise UnsupportedOperation("hold a repository of Icechunk", self.store, "name its place, then |icechunk:")
        reference, _, rest = path.partition("/") if path.startswith("@") else ("", "", path)
        options: dict[str, Any] = {}
        if reference.startswith("@branch."):
            options["branch"] = reference.removeprefix("@branch.")
        elif reference.startswith("@tag."):
            options["tag"] = reference.removeprefix("@tag.")
        elif reference:
            options["snapshot_id"] = reference[1:]
        self._is_view = True
        self.take(KINDS["icechunk"].make(self.root, self.mode, self._storage_options or None, **options))
        self.go(rest)


#: The adapters, by the names that stand before their colons.
ADAPTERS: Mapping[str, Callable[[_Place, str], None]] = {
    name: getattr(_Place, name) for name in ("zip", "lru", "readonly", "zarr2", "zarr3", "n5", "icechunk")
} | {"zarr": _Place.go}


def open_pipeline(
    target: str,
    mode: str,
    storage_options: Mapping[str, Any] | None,
    options: Mapping[str, Any],
    open_store: Callable[..., Store],
) -> Store:
    """Return the store that a URL pipeline names.

    Parameters
    ----------
    target, mode, storage_options, options
        As for `open_store`; `storage_options` and `options` are for the first part.
    open_store : callable
        Opens the first part.

    Raises
    ------
    ValueError
        An adapter is not known; the error names those that are.
    StoreNotFoundError
        What an adapter expects is not there.

    Examples
    --------
    >>> from zarrstore import open_store
    >>> store = open_store("memory:|zarr2:a/b")
    >>> store[".zgroup"] = b'{"zarr_format": 2}'
    >>> store.inner["a/b/.zgroup"]
    b'{"zarr_format": 2}'
    """
    root, parts = _parsed(target)
    if not root:
        raise ValueError(f"cannot open {target!r}: nothing stands before the first |; a path or a URL belongs there")
    for part in parts:
        _check(part.name, target)
    place = _Place(root, mode, storage_options, options, open_store)
    place.target = target
    for part in parts:
        ADAPTERS[part.name](place, part.path)
    store = place.store
    if mode in ("w", "w-"):
        _make_room(store, place.path, mode, target)
    if place.path:
        if mode in ("r", "r+") and store.capabilities.listable and not any(True for _ in store._listdir(place.path)):
            what = "a value is there" if place.path in store else "nothing is there"
            raise StoreNotFoundError(without_secrets(target), f"keys below {place.path!r}; {what}")
        store = PrefixStore(store, place.path)
    return store if mode != "r" or not store.capabilities.writable else ReadOnlyStore(store)


def _make_room(store: Store, path: str, mode: str, target: str) -> None:
    """Empty the path, or raise if anything is there."""
    if mode == "w":
        store.rmdir(path)
    elif store.listdir(path):
        raise DestinationExistsError("", target, "open it with mode 'a', or erase it with mode 'w'")


def _parsed(target: str) -> tuple[str, list[_Part]]:
    """Return the first part of a pipeline, and the others.

    Examples
    --------
    >>> _parsed("gs://bucket/path/to/file.zip|zip:path/to/nested.zip|zip:a%20b/|zarr3:")[1]
    [_Part(name='zip', path='path/to/nested.zip'), _Part(name='zip', path='a b/'), _Part(name='zarr3', path='')]
    """
    root, *others = target.split("|")
    parts = []
    for other in others:
        name, colon, path = other.strip().partition(":")
        if not colon:
            raise ValueError(f"cannot open {target!r}: {other!r} is no adapter, which has a colon behind its name")
        parts.append(_Part(name.lower(), unquote(path)))
    return root.strip(), parts


def _plain(root: str) -> tuple[str, dict[str, Any]]:
    """Return the first part as `open_store` takes it, and the storage options that it names.

    Examples
    --------
    >>> _plain("file:/data/x.zip"), _plain("memory:"), _plain("s3+http://host:9000/bucket/a")
    (('/data/x.zip', {}), ('dict://', {}), ('s3://bucket/a', {'client_kwargs': {'endpoint_url': 'http://host:9000'}}))
    """
    scheme, colon, rest = root.partition(":")
    scheme = scheme.lower()
    if scheme == "file" and colon:
        return unquote(rest.removeprefix("//").removeprefix("localhost")), {}
    if root == "memory:":
        return "dict://", {}
    if scheme in ("s3+http", "s3+https") and rest.startswith("//"):
        host, _, path = rest[2:].partition("/")
        return f"s3://{path}", {"client_kwargs": {"endpoint_url": f"{scheme[3:]}://{host}"}}
    return root, {}


def _check(name: str, target: str) -> None:
    if name in ADAPTERS:
        return
    known = [
        other + (f" (needs {_NEEDS[other]})" if other in _NEEDS and not importlib.util.find_spec(_NEEDS[other]) else "")
        for other in sorted(ADAPTERS)
    ]
    raise ValueError(f"cannot open {target!r}: there is no adapter {name!r}; there are {', '.join(known)}")
