"""The verbs of a store as functions over any mapping: ours, a dict, an fsspec map, a class of your own.

Each makes a Store of the mapping, which uses the mapping's own method where it has one and falls back to its keys
otherwise. A path, a URL and any other object that `open_store` takes is opened for the call, and closed after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from zarrstore import keys as k
from zarrstore.adapt import as_store
from zarrstore.targets import Target, opened, opens

if TYPE_CHECKING:
    from concurrent.futures import Executor

__all__ = [
    "delitems",
    "getitems",
    "getrange",
    "getranges",
    "getsize",
    "getsuffix",
    "keys_below",
    "listdir",
    "rename",
    "rmdir",
    "setitems",
]

#: Keys to bytes, whatever the class.
StoreLike = Mapping[str, Any]


@opens(store="r")
def listdir(store: Target, path: object = "") -> list[str]:
    """Return the sorted names of the immediate children of a path.

    Parameters
    ----------
    store : Mapping of str to bytes
        Any mapping.
    path : str
        A directory; ``""`` is the root.

    Returns
    -------
    list of str
        Each name once; empty for a value or where nothing is.

    Raises
    ------
    InvalidPathError
        A segment is ``.`` or ``..``.
    UnsupportedOperation
        The store cannot be listed.

    Notes
    -----
    Cost: one listing of the directory where the store has its own, else one pass over the keys. Safe while others
    write, as far as the mapping's own iteration is. Source: zarr 2.

    Examples
    --------
    >>> listdir({"foo/bar/0": b"", "foo/.zgroup": b"{}", "foobar/x": b""}, "foo")
    ['.zgroup', 'bar']
    """
    return as_store(store).listdir(path)


@opens(store="r+")
def rmdir(store: Target, path: object = "", *, executor: Executor | None = None) -> None:
    """Remove every key below a path, and nothing beside it.

    Parameters
    ----------
    store : MutableMapping of str to bytes
        Any mapping.
    path : str
        A directory; ``""`` empties the store. A value at `path` itself stays.
    executor : concurrent.futures.Executor, optional
        Processes, or workers elsewhere: they list parts of what is below `path`, and delete them, after this process
        has deleted all documents. Threads change nothing, nor does any executor for a store that cannot travel.

    Raises
    ------
    ClusterError
        `executor` has no worker, one that lacks a package, or workers that see another store: nothing was deleted. Or
        it ended in the middle: the same call deletes the rest.
    InvalidPathError
        A segment is ``.`` or ``..``.
    UnsupportedOperation
        The store cannot erase.

    Notes
    -----
    No error if nothing is there. Cost: one deletion a key, in one batch where the store has them. Not atomic: a
    crash may leave some keys. With an `executor` there are two listings, and documents go first: a crash leaves no
    array that reads as fill values. Source: zarr 2.

    Examples
    --------
    >>> store = {"foo/x": b"1", "foobar/x": b"2"}
    >>> rmdir(store, "foo")
    >>> store
    {'foobar/x': b'2'}
    """
    adapted = as_store(store)
    if executor is not None:
        # What it imports takes as long as all other functions here.
        from zarrstore.tools.deletion import delete_elsewhere, deletes_elsewhere

        if deletes_elsewhere(executor, adapted):
            return delete_elsewhere(adapted, k.normalize_path(path), executor)
    adapted.rmdir(path)


@opens(store="r+")
def rename(store: Target, src_path: object, dst_path: object) -> None:
    """Move a value, a directory, or both, to where nothing stands.

    Parameters
    ----------
    store : MutableMapping of str to bytes
        Any mapping.
    src_path, dst_path : str
        Where from and where to. The same path twice changes nothing.

    Raises
    ------
    KeyError
        Nothing is at `src_path`.
    DestinationExistsError
        Something is at `dst_path`.
    RenameError
        `dst_path` lies within `src_path`.
    ConflictError
        `dst_path` lies below a value, and the store is hierarchical.

    Notes
    -----
    After an error nothing has moved. Where the store has no rename of its own, all is copied before the first key is
    deleted; what another writer sets over a key between the two is lost (`Store.rename` tells where). Source: zarr 2,
    whose generic rename stripped characters instead of the prefix and whose stores differed in all four error cases.

    Examples
    --------
    >>> store = {"uns/names": b"1"}
    >>> rename(store, "uns", "b")
    >>> store
    {'b/names': b'1'}
    """
    as_store(store).rename(src_path, dst_path)


def getsize(store: object, path: object = "") -> int:
    """Return the size of the value at a path, or of the values immediately below it.

    Parameters
    ----------
    store : Mapping of str to bytes
        Any mapping.
    path : str
        A key or a directory.

    Returns
    -------
    int, bytes
        0 where nothing is; -1 where the size cannot be known (`store` is no mapping, or a value is no buffer).

    Notes
    -----
    Not recursive: `du` adds up a whole tree. Source: zarr 2.18.

    Examples
    --------
    >>> store = {"foo/x": b"123", "foo/sub/y": b"45678"}
    >>> getsize(store, "foo"), getsize(store, "foo/sub/y"), getsize(store, "bar"), getsize(None)
    (3, 5, 0, -1)
    """
    with ExitStack() as stack:
        try:
            adapted = stack.enter_context(opened(store, "r"))
        except TypeError:
            return -1
        return adapted.getsize(path)


@opens("iterator", store="r")
def keys_below(store: Target, path: object = "") -> Iterator[str]:
    """Yield the full keys below a path, in any order.

    Parameters
    ----------
    store : Mapping of str to bytes
        Any mapping.
    path : str
        A directory; ``""`` is the root.

    Notes
    -----
    Cost: the keys below where the store can seek, else one pass over all. Source: this package; zarr 3's
    ``list_prefix`` takes a prefix of characters where this takes a path.

    Examples
    --------
    >>> sorted(keys_below({"foo/x": b"", "foo/sub/y": b"", "foobar/x": b""}, "foo"))
    ['foo/sub/y', 'foo/x']
    """
    return as_store(store).keys_below(path)


@opens("store", store="r")
def getitems(store: Target, keys: Iterable[str]) -> Mapping[str, bytes]:
    """Return a mapping of those of some keys that exist, whose values are read when they are asked for.

    Parameters
    ----------
    store : Mapping of str to bytes
        Any mapping.
    keys : iterable of str
        In the order in which they will be read, if there is one.

    Returns
    -------
    Mapping of str to bytes
        Refused and absent keys are not in it. Values handed out are not kept: asking again reads again.

    Notes
    -----
    Cost: one read per value asked for; a store with batches of its own fetches ahead within 64 MiB. Source: zarr 2.18
    ``getitems``; reading late is this package's.

    Examples
    --------
    >>> found = getitems({"foo/0": b"a", "foo/1": b"b"}, ["foo/0", "foo/1", "foo/2"])
    >>> dict(found)
    {'foo/0': b'a', 'foo/1': b'b'}
    """
    return as_store(store).getitems(keys)


@opens(store="a")
def setitems(store: Target, items: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> None:
    """Set many values in one batch.

    Parameters
    ----------
    store : MutableMapping of str to bytes
        Any mapping.
    items : mapping or iterable of pairs
        Keys and bytes-like values. The keys of a mapping are all judged before anything is written.

    Notes
    -----
    Concurrent or in transactions where the store can. Not atomic: after an error some may be set. Source: zarr 2.18
    FSStore.

    Examples
    --------
    >>> store = {}
    >>> setitems(store, {"foo/0": b"a", "foo/1": b"b"})
    >>> store
    {'foo/0': b'a', 'foo/1': b'b'}
    """
    as_store(store).setitems(items)


@opens(store="r+")
def delitems(store: Target, keys: Iterable[str]) -> None:
    """Delete those of some keys that exist, in one batch.

    Parameters
    ----------
    store : MutableMapping of str to bytes
        Any mapping.
    keys : iterable of str
        Absent ones are passed over.

    Notes
    -----
    Source: zarr 2.18 FSStore.

    Examples
    --------
    >>> store = {"foo/0": b"a", "foo/1": b"b"}
    >>> delitems(store, ["foo/1", "foo/2"])
    >>> store
    {'foo/0': b'a'}
    """
    as_store(store).delitems(keys)


@opens(store="r")
def getrange(store: Target, key: str, start: int, stop: int | None = None) -> bytes:
    """Return a part of a value, reading no more than it where the store can.

    Parameters
    ----------
    store : Mapping of str to bytes
        Any mapping.
    key : str
        The value.
    start, stop : int, bytes
        Offsets from the start, clipped at the end of the value; `stop` None is the end.

    Raises
    ------
    KeyError
        The key is absent.
    ValueError
        An offset is negative: the last bytes are `getsuffix`.

    Examples
    --------
    >>> getrange({"a": b"0123456789"}, "a", 2, 5), getrange({"a": b"0123"}, "a", 2, 99)
    (b'234', b'23')
    """
    return as_store(store).getrange(key, start, stop)


@opens(store="r")
def getranges(store: Target, key: str, spans: Iterable[tuple[int, int | None]]) -> list[bytes]:
    """Return several parts of one value, in as few reads as the store can.

    Parameters
    ----------
    store : Mapping of str to bytes
        Any mapping.
    key : str
        The value.
    spans : iterable of (start, stop), bytes
        Offsets from the start, clipped at the end of the value; a `stop` of None is the end.

    Returns
    -------
    list of bytes
        One part for each span, in the order of `spans`.

    Raises
    ------
    KeyError
        The key is absent.
    ValueError
        An offset is negative.

    Notes
    -----
    Parts that lie at most 64 KiB apart are read together. Source: zarr 3.4 ``get_ranges``.

    Examples
    --------
    >>> getranges({"a": b"0123456789"}, "a", [(8, None), (0, 2)])
    [b'89', b'01']
    """
    return as_store(store).getranges(key, spans)


@opens(store="r")
def getsuffix(store: Target, key: str, n: int) -> bytes:
    """Return the last bytes of a value, or all there are.

    Parameters
    ----------
    store : Mapping of str to bytes
        Any mapping.
    key : str
        The value.
    n : int, bytes
        How many; 0 gives ``b""``.

    Raises
    ------
    KeyError
        The key is absent.
    ValueError
        `n` is negative.

    Examples
    --------
    >>> getsuffix({"a": b"0123456789"}, "a", 3), getsuffix({"a": b"01"}, "a", 0)
    (b'789', b'')
    """
    return as_store(store).getsuffix(key, n)
