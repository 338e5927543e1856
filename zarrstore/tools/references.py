"""Reference files: opened over any targets, and written for what lies in a zip archive, a directory or a bucket."""

from __future__ import annotations

import base64
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from zarrstore import keys as k
from zarrstore.adapt import as_store
from zarrstore.base import Store
from zarrstore.errors import InvalidPathError, StoreNotFoundError, UnsupportedOperation
from zarrstore.kinds import KINDS, load
from zarrstore.metadata.documents import DOCUMENTS
from zarrstore.registry import remote_store
from zarrstore.targets import Target, opens
from zarrstore.tools.listing import keys_of, value_or_none
from zarrstore.tools.manifest import write_lines
from zarrstore.tools.overlapping import refuse_file

__all__ = ["TargetStores", "open_references", "open_remote_references", "write_references"]

#: Stores of targets that are kept open.
_MOST_OPEN = 64
#: Schemes of files on this machine.
_LOCAL = ("file", "local")
#: And of what fsspec finds there.
_NEAR = frozenset({*_LOCAL, "git", "libarchive", "dask"})
_REFUSAL = "a reference file from elsewhere names it, a file of this machine; pass local_targets=True"


class TargetStores:
    """Finds the targets of a reference file: ``targets(url) -> (store, key)``.

    Parameters
    ----------
    base : str, optional
        The folder, or the URL of the folder, in which the reference file is: where relative names begin.
    options : mapping, optional
        What the file systems of the targets need to be told.
    local : bool, default True
        Whether files of this machine are read. A reference file that came from elsewhere could name any.

    Notes
    -----
    A path is taken as it stands, and a relative one below `base` if a file is there, else below the current directory,
    as fsspec does. Nothing is ever written. Threads: safe. Pickles by its arguments.
    """

    def __init__(self, base: str | None = None, options: Mapping[str, Any] | None = None, local: bool = True) -> None:
        self.base = base
        self.options = dict(options or {})
        self.local = local
        self._stores: OrderedDict[str, Store] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.base, self.options, self.local)

    def __call__(self, url: str) -> tuple[Store, str]:
        scheme, parted, rest = url.partition("://")
        if not self.local and "::" in url and any(map(_is_near, url.split("::"))):
            raise InvalidPathError(url, _REFUSAL)
        if not self.local and scheme in _NEAR:
            raise InvalidPathError(url, _REFUSAL)
        if "::" not in url and (not parted or scheme in _LOCAL):
            return self._local(rest if parted else url, is_bare=not parted)
        for place, name in _places(url):
            if k.is_key(name):
                return self._store(place), name
        raise InvalidPathError(url, "it names no file")

    def _local(self, path: str, is_bare: bool) -> tuple[Store, str]:
        path = os.path.expanduser(path)
        if not os.path.isabs(path) and is_bare and self.base is not None:
            if "://" in self.base:
                return self(f"{self.base.rstrip('/')}/{path}")
            beside = os.path.join(self.base, path)
            path = beside if os.path.exists(beside) else path
        if not self.local:
            raise InvalidPathError(path, _REFUSAL)
        folder, name = os.path.split(os.path.abspath(path))
        return self._store(folder), name

    def _store(self, place: str) -> Store:
        with self._lock:
            store = self._stores.get(place)
            if store is None:
                is_local = "://" not in place
                store = KINDS["dir"].make(place) if is_local else remote_store(place, self.options, {})
                self._stores[place] = store
                if len(self._stores) > _MOST_OPEN:
                    self._stores.popitem(last=False)  # not closed: another thread may be reading
            self._stores.move_to_end(place)
            return store

    def close(self) -> None:
        """Close the stores of all targets."""
        with self._lock:
            while self._stores:
                self._stores.popitem()[1].close()


def _is_near(link: str) -> bool:
    """Tell whether a link of a chain of URLs is a file of this machine, or may be one."""
    scheme, parted, _ = link.partition("://")
    # "simplecache" alone is the name of what is laid around the next link; a path has a slash.
    return scheme in _NEAR or (not parted and not link.replace("_", "").isalnum())


def _places(url: str) -> Iterator[tuple[str, str]]:
    """Yield how a URL is split into a store and a key: behind its host or bucket, and at its last slash.

    Examples
    --------
    >>> list(_places("s3://bucket/a/b.nc"))
    [('s3://bucket', 'a/b.nc'), ('s3://bucket/a', 'b.nc')]
    >>> list(_places("https://host//a/b%20c.nc?x=1"))[-1]
    ('https://host//a?x=1', 'b c.nc')
    >>> list(_places("zip://a/b.nc::s3://bucket/c.zip"))[-1]
    ('zip://a::s3://bucket/c.zip', 'b.nc')
    """
    first, chain, others = url.partition("::")
    if "://" not in first:  # simplecache::s3://bucket/a
        yield from ((f"{first}::{place}", name) for place, name in _places(others))
        return
    scheme, _, rest = first.partition("://")
    is_web = scheme in KINDS["http"].schemes
    path, question, query = rest.partition("?") if is_web else (rest, "", "")
    tail = f"{question}{query}{chain}{others}"
    for (head, _, name), least in ((path.partition("/"), 1), (path.rpartition("/"), 0)):
        if len(head) >= least:
            yield f"{scheme}://{head}{tail}", unquote(name) if is_web else name


def open_references(
    path: str,
    *,
    remote_options: Mapping[str, Any] | None = None,
    target: str | None = None,
) -> Store:
    """Return the store of a reference file on this machine: JSON, or a folder of Parquet.

    Parameters
    ----------
    path : str
        The file or folder.
    remote_options : mapping, optional
        What the file systems of the targets need to be told.
    target : str, optional
        The target of references that name none.

    Raises
    ------
    StoreNotFoundError
        Nothing is there: a reference file is not begun by opening it.
    """
    if not os.path.exists(path):
        raise StoreNotFoundError(path, "a reference file, which `zarrstore refs` writes for what exists")
    path = os.path.abspath(path)
    make = load("zarrstore.bridges.references:ReferenceStore")
    targets = TargetStores(os.path.dirname(path), remote_options)
    if os.path.isdir(path):
        return make.from_parquet(KINDS["dir"].make(path), targets, target=target, label=path)  # type: ignore[attr-defined,no-any-return]
    with open(path, "rb") as file:
        return make(file.read(), targets, target=target, label=path)  # type: ignore[no-any-return]


def open_remote_references(
    folder: Store,
    name: str,
    url: str,
    storage_options: Mapping[str, Any] | None = None,
    *,
    remote_options: Mapping[str, Any] | None = None,
    target: str | None = None,
    local_targets: bool = False,
) -> Store:
    """Return the store of a reference file that is a value of a store, or all of it if `name` is empty.

    Parameters
    ----------
    folder, name : Store, str
        Where it is.
    url : str
        What errors call it.
    storage_options : mapping, optional
        Those of `folder`; used for the targets too, unless there are `remote_options`.
    remote_options, target
        As for `open_references`.
    local_targets : bool, default False
        Whether it may name files of this machine.
    """
    make = load("zarrstore.bridges.references:ReferenceStore")
    base = url.partition("?")[0].rpartition("/")[0]
    targets = TargetStores(base, storage_options if remote_options is None else remote_options, local_targets)
    if not name:
        return make.from_parquet(folder, targets, target=target, label=url)  # type: ignore[attr-defined,no-any-return]
    return make(folder[name], targets, target=target, label=url)  # type: ignore[no-any-return]


@opens(store="r")
def write_references(store: Target, file: str | os.PathLike[str], path: object = "") -> int:
    """Write a reference file for all that is below a path; return the number of keys.

    Parameters
    ----------
    store : Mapping of str to bytes
        Whose values lie in files as they are: a directory, a bucket, a web server, or a zip archive of stored entries,
        there or here.
    file : path-like
        Where to write, outside the store. Replaced as a whole.
    path : str
        Where to begin; keys are written relative to it.

    Raises
    ------
    OverlapError
        `file` lies among the values below `path`.
    UnsupportedOperation
        A value lies in no file as it is (packed in a zip archive, in a database, made by a wrapper). Nothing is
        written.

    Notes
    -----
    The file is Kerchunk's version 1: documents stand in it, of all else its place. It is right for as long as what it
    names is not changed. Cost: one listing, one read of each document, and of each local header of an archive. Memory:
    a batch.

    Examples
    --------
    >>> import os, tempfile
    >>> from zarrstore import DirectoryStore, open_store
    >>> folder = tempfile.mkdtemp()
    >>> store = DirectoryStore(folder + "/data")
    >>> store.update({".zgroup": b"{}", "a/0": b"chunk"})
    >>> write_references(store, folder + "/refs.json")
    2
    >>> dict(open_store(folder + "/refs.json"))
    {'.zgroup': b'{}', 'a/0': b'chunk'}
    """
    adapted = as_store(store)
    at = k.normalize_path(path)
    refuse_file(file, "reference file", adapted, at)
    count = 0

    def lines() -> Iterator[str]:
        nonlocal count
        yield '{"version": 1, "refs": {\n'
        for key in keys_of(adapted, at):
            reference = _reference(adapted, key)
            if reference is not None:
                separator = ",\n" if count else ""
                yield f"{separator}{json.dumps(k.replace_root(key, at, ''))}: {json.dumps(reference)}"
                count += 1
        yield "\n}}\n"

    write_lines(file, lines())
    return count


def _reference(store: Store, key: str) -> Any:
    if k.name(key) in DOCUMENTS:
        value = value_or_none(store, key)
        return None if value is None else _text(value)
    extent = store._extent(key)
    if extent is None:
        raise UnsupportedOperation(
            f"say in which file the bytes of {key!r} lie",
            store,
            "copy it to a directory or a bucket, or pack it (zarrstore pack), and refer to that",
        )
    return [extent.url] if extent.nbytes is None else [extent.url, extent.start, extent.nbytes]


def _text(value: bytes) -> str:
    """Return a value as the text that stands for it in a reference file."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = "base64:"
    return f"base64:{base64.b64encode(value).decode()}" if text.startswith("base64:") else text
