"""A store whose keys are known: names come from memory, documents are read ahead in batches."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import takewhile

from zarrstore import keys as k
from zarrstore.allowance import allowed
from zarrstore.base import Store
from zarrstore.tools.holding import is_document
from zarrstore.wrappers.base import Wrapper

__all__ = ["ListedStore"]

#: Documents that are read together, and bytes of documents that are kept.
_AHEAD, _BUDGET = 512, 64 << 20


class ListedStore(Wrapper):
    """`inner` with the keys that were found in it.

    Parameters
    ----------
    inner : Store
        What is looked at.
    keys : sequence of str
        All keys that matter, sorted.

    Notes
    -----
    Where `inner` is `concurrent`, a look at one document reads the next 512 as well, of which up to 64 MiB are kept: a
    verb that takes one document after the other then waits once for 512 of them. For one thread.

    Examples
    --------
    >>> from zarrstore.adapt import as_store
    >>> store = ListedStore(as_store({"a/.zarray": b"{}", "a/0": b""}), ["a/.zarray", "a/0"])
    >>> store.listdir(), store.listdir("a"), store["a/.zarray"]
    (['a'], ['.zarray', '0'], b'{}')
    """

    def __init__(self, inner: Store, keys: Sequence[str]) -> None:
        super().__init__(inner)
        self._listed = keys
        self._present = frozenset(keys)
        self._documents = [key for key in keys if is_document(key)] if inner.capabilities.concurrent else []
        self._ahead: dict[str, bytes] = {}
        self._nbytes_ahead = 0
        self.capabilities = replace(inner.capabilities, listable=True, concurrent=False)

    def _keys(self, path: str) -> Iterator[str]:
        start = bisect_left(self._listed, k.prefix(path))
        keys = (self._listed[at] for at in range(start, len(self._listed)))
        return takewhile(lambda key: k.is_below(key, path), keys)

    def _listdir(self, path: str) -> set[str]:
        names = set()
        at = bisect_left(self._listed, k.prefix(path))
        while at < len(self._listed) and (name := k.child(self._listed[at], path)):
            names.add(name)
            full = k.join(path, name)
            at = at + 1 if self._listed[at] == full else bisect_left(self._listed, k.beyond(full), at)
        return names

    def _contains(self, key: str) -> bool:
        return key in self._present

    def _get(self, key: str) -> bytes:
        if key not in self._ahead:
            self._read_ahead(key)
        value = self._ahead.get(key)
        return super()._get(key) if value is None else value

    def _read_ahead(self, key: str) -> None:
        at = bisect_left(self._documents, key)
        if at == len(self._documents) or self._documents[at] != key:
            return
        if self._nbytes_ahead > _BUDGET:
            self._ahead.clear()
            self._nbytes_ahead = 0
        with allowed(_BUDGET):
            found = self.inner._get_many(wanted := self._documents[at : at + _AHEAD])
        for name in wanted:
            try:
                value = found[name]
            except Exception:
                continue  # met again when it is asked for
            self._ahead[name] = value
            self._nbytes_ahead += len(value)
