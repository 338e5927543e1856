"""What an OverlayStore shows: the values above, and those below that no mark hides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from zarrstore import keys as k
from zarrstore.base import Entry, Store
from zarrstore.batch import AheadItems, LazyItems
from zarrstore.wrappers._marks import MARKS, Marks
from zarrstore.wrappers._reads import SidedReads

__all__ = ["FEW", "OverlayReads"]

#: Up to this many names are checked one by one; for more, one listing is cheaper.
FEW = 8


class OverlayReads(SidedReads):
    """The driver methods of an OverlayStore that read."""

    upper: Store
    _marks: Marks

    @staticmethod
    def _is_mark(path: str) -> bool:
        return path == MARKS or k.is_below(path, MARKS)

    def _side(self, key: str) -> Store:
        if self._is_mark(key):
            raise KeyError(key)
        if self.upper._contains(key):
            return self.upper
        if self._marks.hides(key):
            raise KeyError(key)
        return self.inner

    def _get(self, key: str) -> bytes:
        if self._is_mark(key):
            raise KeyError(key)
        try:
            return self.upper._get(key)
        except KeyError:
            if self._marks.hides(key):
                raise
        return self.inner._get(key)

    def _get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        wanted = [key for key in keys if not self._is_mark(key)]
        if self.upper.capabilities.concurrent:
            return AheadItems(self._fetch, wanted)
        above = {key for key in wanted if self.upper._contains(key)}
        # Each store is asked only for what it has, so that none fetches ahead what the other gives.
        upper = self.upper._get_many([key for key in wanted if key in above])
        lower = self.inner._get_many([key for key in wanted if key not in above and not self._marks.hides(key)])
        return LazyItems(lambda key: (upper if key in above else lower)[key], wanted)

    def _fetch(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """Return those of `keys` that exist, by one batch of each store."""
        found = dict(self.upper._get_many(keys).items())
        lower = [key for key in keys if key not in found and not self._marks.hides(key)]
        if lower:
            found.update(self.inner._get_many(lower).items())
        return found

    def _keys(self, path: str) -> Iterator[str]:
        above = set()
        for key in self.upper._keys(path):
            if not self._is_mark(key):
                above.add(key)
                yield key
        if self._marks.hides_below(path):
            return
        for key in self.inner._keys(path):
            if key not in above and not self._marks.hides(key) and not self._is_mark(key):
                yield key

    def _details(self, path: str) -> Iterator[Entry]:
        above = set()
        for entry in self.upper._details(path):
            if not self._is_mark(entry.key):
                above.add(entry.key)
                yield _with_side(entry, "upper")
        if self._marks.hides_below(path):
            return
        for entry in self.inner._details(path):
            if entry.key not in above and not self._marks.hides(entry.key) and not self._is_mark(entry.key):
                yield _with_side(entry, "lower")

    def _entry(self, key: str) -> Entry:
        side = self._side(key)
        return _with_side(side._entry(key), "upper" if side is self.upper else "lower")

    def _count(self) -> int:
        return sum(1 for _ in self._keys(""))

    def _listdir(self, path: str) -> Iterable[str]:
        return dict(self._list_children(path))

    def _list_children(self, path: str) -> Iterable[tuple[str, bool]]:
        if self._is_mark(path):
            return ()
        children = self._visible(path)
        for name, is_path in self.upper._list_children(path):
            children[name] = is_path or children.get(name, False)
        if not path:
            children.pop(MARKS, None)
        return children.items()

    def _visible(self, path: str) -> dict[str, bool]:
        """Return the names that `lower` shows through at `path`, each with whether keys may be below it."""
        if self._marks.hides_below(path):
            return {}
        children = dict(self.inner._list_children(path))
        shown = self._unhidden(path, set(children))
        return {name: is_path for name, is_path in children.items() if name in shown}

    def _unhidden(self, path: str, names: set[str]) -> set[str]:
        """Return the names at `path` of which the marks leave anything."""
        doubtful = {name for name in names if self._marks.may_hide(k.join(path, name))}
        if not doubtful:
            return names
        sure = names - doubtful
        if len(doubtful) > FEW:
            keys = (key for key in self.inner._keys(path) if not self._marks.hides(key))
            return sure | (doubtful & k.children(keys, path))
        return sure | {name for name in doubtful if self._shows(k.join(path, name))}

    def _shows(self, path: str) -> bool:
        """Tell whether anything of `lower` at or below `path` is left."""
        if not self._marks.hides(path) and self.inner._contains(path):
            return True
        return not self._marks.hides_below(path) and any(not self._marks.hides(key) for key in self.inner._keys(path))

    def _getsize(self, path: str) -> int:
        if self._is_mark(path):
            return 0
        if not any(True for _ in self.upper._listdir(path)) and not (path and self.upper._contains(path)):
            if not self._marks.may_hide(path):
                return self.inner._getsize(path)  # nothing at or below `path` was changed
        return Store._getsize(self, path)


def _with_side(entry: Entry, side: str) -> Entry:
    """Return an entry whose identity names its store: values of the two stores never have the same identity."""
    return entry._replace(identity=f"{side} {entry.identity}") if entry.identity else entry
