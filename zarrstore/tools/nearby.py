"""What a verb says when nothing is at its path: what is there instead, and what was meant."""

from __future__ import annotations

import os
from contextlib import suppress
from itertools import islice

from zarrstore import keys as k
from zarrstore.base import Store
from zarrstore.errors import NodeNotFoundError, StoreNotFoundError, UnsupportedOperation

__all__ = ["absent", "absent_store", "near_misses"]

#: Names of a directory that the sentence shows.
_SHOWN = 6
#: Names of a directory of this machine that are compared with what was asked for.
_COMPARED = 10_000


def near_misses(word: str, names: list[str]) -> list[str]:
    """Return those of some names that somebody may have meant, the nearest first.

    Examples
    --------
    >>> near_misses("tmperature", ["temperature", "pressure"]), near_misses("FOO", ["foo"])
    (['temperature'], ['foo'])
    """
    import difflib

    exact = [name for name in names if name.lower() == word.lower()]
    return exact or difflib.get_close_matches(word, names, n=3, cutoff=0.6)


def absent(store: Store, path: str, what: str = "") -> NodeNotFoundError:
    """Return the error of a path at which nothing is.

    Parameters
    ----------
    store : Store
        Where it was looked for.
    path : str
        A normal path.
    what : str
        What was looked for, as ``"array or group"``; empty for anything at all.

    Notes
    -----
    Cost: one listing for each segment of the path that is not there, where the store can be listed.

    Examples
    --------
    >>> from zarrstore.adapt import as_store
    >>> print(absent(as_store({"foo/bar/0": b""}), "foo/baz"))
    nothing at 'foo/baz': did you mean 'foo/bar'?
    >>> print(absent(as_store({"foo/x": b"", "a": b""}), "", "array or group"))
    no array or group at the root: it holds 'a', 'foo'
    >>> print(absent(as_store({}), ""))
    nothing at the root: the store is empty
    """
    hint = ""
    with suppress(UnsupportedOperation):
        hint = _hint(store, path)
    return NodeNotFoundError(path, what, hint)


def _hint(store: Store, path: str) -> str:
    above, missing = path, ""
    names = store.listdir(above)
    while not names and above:
        above, missing = k.parent(above), k.name(above)
        names = store.listdir(above)
    if not names:
        return "the store is empty"
    near = [k.join(above, name) for name in near_misses(missing, names)] if missing else []
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    shown = ", ".join(map(repr, names[:_SHOWN]))
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    place = "it" if above == path else repr(above) if above else "the root"
    return f"{place} holds {shown}{more}"


def absent_store(path: str, looked_for: str) -> StoreNotFoundError:
    """Return the error for a path of this machine at which is no store; it names what in its directory may be meant."""
    folder, name = os.path.split(os.path.abspath(path))
    names: list[str] = []
    with suppress(OSError), os.scandir(folder) as entries:
        names = [entry.name for entry in islice(entries, _COMPARED)]
    close = [os.path.join(os.path.dirname(path), found) for found in near_misses(name, names) if found != name]
    meant = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
    return StoreNotFoundError(path, looked_for + meant)
