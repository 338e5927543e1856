"""A store without the files that desktops, file systems and killed writers leave."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from zarrstore import keys as k
from zarrstore.base import Entry, Store
from zarrstore.errors import InvalidKeyError
from zarrstore.targets import Target
from zarrstore.wrappers.base import Wrapper

__all__ = ["JUNK", "FilterStore"]

#: What desktops, file systems and writers that died leave behind: patterns of names, case ignored.
JUNK = (
    ".DS_Store",
    "._*",  # macOS resource forks
    ".AppleDouble",
    ".Spotlight-V100",
    ".Trashes",
    ".fseventsd",
    "__MACOSX",  # macOS archives
    "Thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "$RECYCLE.BIN",
    "System Volume Information",
    ".directory",  # KDE
    ".nfs*",  # deleted, but still open on NFS
    "lost+found",
    ".ipynb_checkpoints",
    ".git",
    "*." + "[0-9a-f]" * 32 + ".partial",  # zarr 2 and 3, killed while writing
)


class FilterStore(Wrapper):
    """`inner` without the keys of which a segment matches a pattern: they are not read, listed, counted or set.

    Parameters
    ----------
    inner : Mapping
        The store that holds junk, or any mapping.
    hidden : iterable of str, default JUNK
        Shell patterns (``*``, ``?``, ``[...]``) of single names, case ignored.

    Notes
    -----
    Setting a hidden key raises InvalidKeyError. `rmdir` and `rename` take a directory with the junk in it. A directory
    that holds nothing but junk is still listed by its own parent: to know better would cost a listing for each name.
    Cost: one match for each segment. Thread, process and crash safety are those of `inner`. Source: this
    package.

    Examples
    --------
    >>> store = FilterStore({"a/0.0": b"1", "a/.DS_Store": b"", "a/._0.0": b"", ".zgroup": b"{}"})
    >>> sorted(store), store.listdir("a"), sorted(store.hidden_keys())
    (['.zgroup', 'a/0.0'], ['0.0'], ['a/.DS_Store', 'a/._0.0'])
    >>> store["a/Thumbs.db"] = b""
    Traceback (most recent call last):
    zarrstore.errors.InvalidKeyError: invalid key 'a/Thumbs.db': 'Thumbs.db' is hidden by a FilterStore
    """

    passes_buffers = True

    def __init__(self, inner: Target, hidden: Iterable[str] = JUNK) -> None:
        super().__init__(inner)
        self.hidden = (hidden,) if isinstance(hidden, str) else tuple(hidden)
        # "(?!)" matches nothing: no patterns, nothing hidden.
        self._junk = re.compile("|".join(map(fnmatch.translate, self.hidden)) or "(?!)", re.IGNORECASE)

    def _place(self) -> object:
        place = super()._place()
        return None if place is None else (place, self.hidden)

    def is_hidden(self, key: str) -> bool:
        """Tell whether a key or path is out of sight here."""
        return any(map(self._junk.match, k.segments(key)))

    def hidden_keys(self, path: object = "") -> Iterator[str]:
        """Yield the keys of `inner` below `path` that are out of sight, so that they can be looked at or deleted."""
        return filter(self.is_hidden, self.inner._keys(k.normalize_path(path)))

    def _seen(self, key: str) -> str:
        if self.is_hidden(key):
            raise KeyError(key)
        return key

    def _settable(self, key: str) -> str:
        for name in k.segments(key):
            if self._junk.match(name):
                raise InvalidKeyError(key, f"{name!r} is hidden by a FilterStore")
        return key

    # Reads ---------------------------------------------------------------------------------------------------------

    def _get(self, key: str) -> bytes:
        return self.inner._get(self._seen(key))

    def _contains(self, key: str) -> bool:
        return not self.is_hidden(key) and self.inner._contains(key)

    def _keys(self, path: str) -> Iterable[str]:
        return (key for key in self.inner._keys(path) if not self.is_hidden(key))

    def _details(self, path: str) -> Iterable[Entry]:
        return (entry for entry in self.inner._details(path) if not self.is_hidden(entry.key))

    def _count(self) -> int:
        # Not forwarded: it would count the junk.
        return sum(1 for _ in self._keys(""))

    def _get_range(self, key: str, start: int, stop: int | None) -> bytes:
        return self.inner._get_range(self._seen(key), start, stop)

    def _get_ranges(self, key: str, spans: Sequence[tuple[int, int | None]]) -> list[bytes]:
        return self.inner._get_ranges(self._seen(key), spans)

    def _get_suffix(self, key: str, n: int) -> bytes:
        return self.inner._get_suffix(self._seen(key), n)

    def _nbytes(self, key: str) -> int:
        return self.inner._nbytes(self._seen(key))

    def _get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        return self.inner._get_many([key for key in keys if not self.is_hidden(key)])

    def _listdir(self, path: str) -> Iterable[str]:
        if self.is_hidden(path):
            return []
        return [name for name in self.inner._listdir(path) if not self._junk.match(name)]

    def _list_children(self, path: str) -> Iterable[tuple[str, bool]]:
        if self.is_hidden(path):
            return []
        return [(name, is_path) for name, is_path in self.inner._list_children(path) if not self._junk.match(name)]

    def _getsize(self, path: str) -> int:
        if self.is_hidden(path):
            return 0
        if any(map(self._junk.match, self.inner._listdir(path))):
            return Store._getsize(self, path)
        return self.inner._getsize(path)

    # Writes --------------------------------------------------------------------------------------------------------

    def _set(self, key: str, value: bytes) -> None:
        self.inner._set(self._settable(key), value)

    def _set_many(self, items: Iterable[tuple[str, bytes]]) -> None:
        self.inner._set_many((self._settable(key), value) for key, value in items)

    def _delete(self, key: str) -> None:
        self.inner._delete(self._seen(key))

    def _delete_many(self, keys: Iterable[str]) -> None:
        self.inner._delete_many([key for key in keys if not self.is_hidden(key)])

    def _rmdir(self, path: str) -> None:
        if not self.is_hidden(path):
            self.inner._rmdir(path)

    def _rename(self, source: str, destination: str) -> None:
        self._settable(destination)
        # Junk at the destination would be in the way. No rmdir: another writer may have come since Store.rename looked.
        self.inner._delete_many(list(self.hidden_keys(destination)))
        self.inner._rename(source, destination)
