"""Changes kept apart from what they change, until they are committed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from zarrstore import keys as k
from zarrstore.adapt import as_store
from zarrstore.base import Store
from zarrstore.batch import LazyItems
from zarrstore.errors import ConflictError, InvalidKeyError
from zarrstore.wrappers.base import Wrapper

__all__ = ["MARKS", "OverlayStore", "Pending"]

#: Where `upper` keeps what was deleted. A key of its own kind and not a reserved one, so that any store can hold it and
#: any tool can copy it.
MARKS = ".zarrstore-overlay"

# A mark must not be in the way of another, also in a store where a value cannot stand on a directory: directories begin
# with "d", the mark of one key with "k", and that of all keys below a path is "below".
_DIRECTORY, _KEY, _BELOW = "d", "k", "below"
#: Directories whose names in `lower` are remembered while values are set there.
_REMEMBERED = 64
#: So many doubtful names are looked into one by one; for more, one pass over the keys is cheaper.
_DOUBTFUL = 8


@dataclass(frozen=True)
class Pending:
    """What `commit` would do, sorted.

    Parameters
    ----------
    set : tuple of str
        Keys whose values are new.
    deleted : tuple of str
        Keys of `lower` that are gone.
    removed_below : tuple of str
        Paths of `lower` below which everything is gone; ``""`` is the whole.
    """

    set: tuple[str, ...]
    deleted: tuple[str, ...]
    removed_below: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.set or self.deleted or self.removed_below)


class OverlayStore(Wrapper):
    """`lower`, never written until `commit`: what is set goes to `upper`, what is deleted is remembered there.

    Parameters
    ----------
    lower : Mapping
        What is changed in appearance only: a remote store, yesterday's release.
    upper : MutableMapping
        Takes the changes: a DictStore to try something out, a DirectoryStore to keep them. Opened again over the same
        `lower` it shows the same.

    Notes
    -----
    Deletions are marks: empty values below ``.zarrstore-overlay/`` in `upper`, out of sight here; that name cannot be
    set. Each change is one write to `upper` and as safe as that. Every step of `commit` leaves what is seen unchanged:
    deletions are applied to `lower`, then values, `lower` is flushed, then the marks are dropped and the values last;
    after a crash, open the two again and commit again. One overlay at a time on one `upper`; `lower` is not to be
    changed by others meanwhile. Threads: safe, as far as both are. A hierarchical overlay looks once into each
    directory of `lower` that it writes to. Source: this package; Linux' overlayfs for the idea.

    Examples
    --------
    >>> release = {"a/0": b"old", "a/1": b"old", "b/0": b"old"}
    >>> store = OverlayStore(release, {})
    >>> store["a/0"] = b"new"
    >>> store.rmdir("b")
    >>> dict(store), release
    ({'a/0': b'new', 'a/1': b'old'}, {'a/0': b'old', 'a/1': b'old', 'b/0': b'old'})
    >>> store.commit()
    >>> release
    {'a/0': b'new', 'a/1': b'old'}
    """

    def __init__(self, lower: Mapping[str, Any], upper: Mapping[str, Any]) -> None:
        super().__init__(lower)
        self.upper = as_store(upper)
        below, above = self.inner.capabilities, self.upper.capabilities
        self.capabilities = replace(
            above,
            listable=below.listable and above.listable,
            hierarchical=below.hierarchical or above.hierarchical,
            ranged=below.ranged and above.ranged,
            concurrent=below.concurrent and (above.concurrent or not above.blocking),
            thread_safe=below.thread_safe and above.thread_safe,
            process_safe=False,  # marks are read once
            blocking=below.blocking or above.blocking,
        )
        self._gone: set[str] = set()
        self._cut: set[str] = set()
        #: Marked keys and paths, and everything above them: where a listing of `lower` needs a second look.
        self._touched: set[str] = set()
        self._lower_names: dict[str, frozenset[str]] = {}
        self._lower_values: dict[str, bool] = {}
        self._read_marks()

    @property
    def lower(self) -> Store:
        """The store below."""
        return self.inner

    def __repr__(self) -> str:
        return f"OverlayStore({self.inner!r}, {self.upper!r})"

    def _place(self) -> object:
        places = [(type(store), store._place()) for store in (self.inner, self.upper)]
        return None if any(place is None for _, place in places) else places

    # Marks ---------------------------------------------------------------------------------------------------------

    def _read_marks(self) -> None:
        self._gone.clear()
        self._cut.clear()
        self._touched.clear()
        for mark in self.upper._keys(MARKS):
            *directories, last = k.segments(mark)[1:]
            path = k.join(*(name[len(_DIRECTORY) :] for name in directories))
            if last == _BELOW:
                self._remember(self._cut, path)
            elif last.startswith(_KEY):  # anything else is not ours: .DS_Store, say
                self._remember(self._gone, k.join(path, last[len(_KEY) :]))

    def _remember(self, marks: set[str], path: str) -> None:
        marks.add(path)
        self._touched.add(path)
        self._touched.update(k.parents(path))

    @staticmethod
    def _mark(path: str, name: str) -> str:
        return k.join(MARKS, *(_DIRECTORY + segment for segment in k.segments(path)), name)

    def _key_mark(self, key: str) -> str:
        return self._mark(k.parent(key), _KEY + k.name(key))

    def _is_cut(self, path: str) -> bool:
        """Tell whether `path` lies below a removed directory."""
        return bool(self._cut) and any(above in self._cut for above in k.parents(path))

    def _is_gone(self, key: str) -> bool:
        """Tell whether the key of `lower` is deleted here."""
        return key in self._gone or self._is_cut(key)

    @staticmethod
    def _is_mark(path: str) -> bool:
        return path == MARKS or k.is_below(path, MARKS)

    def _delete_below(self, keys: Sequence[str]) -> None:
        """Mark keys of `lower` as deleted."""
        if keys:
            self.upper._set_many((self._key_mark(key), b"") for key in keys)
        for key in keys:
            self._remember(self._gone, key)

    # Reads ---------------------------------------------------------------------------------------------------------

    def _holder(self, key: str) -> Store:
        """Return the store that has the key, if one has."""
        if self._is_mark(key):
            raise KeyError(key)
        if self.upper._contains(key):
            return self.upper
        if self._is_gone(key):
            raise KeyError(key)
        return self.inner

    def _get(self, key: str) -> bytes:
        if self._is_mark(key):
            raise KeyError(key)
        try:
            return self.upper._get(key)
        except KeyError:
            if self._is_gone(key):
                raise
        return self.inner._get(key)

    def _contains(self, key: str) -> bool:
        try:
            return self._holder(key)._contains(key)
        except KeyError:
            return False

    def _get_range(self, key: str, start: int, stop: int | None) -> bytes:
        return self._holder(key)._get_range(key, start, stop)

    def _get_ranges(self, key: str, spans: Sequence[tuple[int, int | None]]) -> list[bytes]:
        return self._holder(key)._get_ranges(key, spans)

    def _get_suffix(self, key: str, n: int) -> bytes:
        return self._holder(key)._get_suffix(key, n)

    def _nbytes(self, key: str) -> int:
        return self._holder(key)._nbytes(key)

    def _get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        wanted = [key for key in keys if not self._is_mark(key)]
        above = {key for key in wanted if self.upper._contains(key)}
        # Each store is asked only for what it has, so that none fetches ahead what the other gives.
        upper = self.upper._get_many([key for key in wanted if key in above])
        lower = self.inner._get_many([key for key in wanted if key not in above and not self._is_gone(key)])
        return LazyItems(lambda key: (upper if key in above else lower)[key], wanted)

    def _keys(self, path: str) -> Iterator[str]:
        above = set()
        for key in self.upper._keys(path):
            if not self._is_mark(key):
                above.add(key)
                yield key
        if path in self._cut or self._is_cut(path):
            return
        for key in self.inner._keys(path):
            if key not in above and not self._is_gone(key) and not self._is_mark(key):
                yield key

    def _count(self) -> int:
        return sum(1 for _ in self._keys(""))

    def _listdir(self, path: str) -> Iterable[str]:
        if self._is_mark(path):
            return set()
        names = set(self.upper._listdir(path)) | self._visible(path)
        return names if path else names - {MARKS}

    def _visible(self, path: str) -> set[str]:
        """Return the names that `lower` shows through at `path`."""
        if path in self._cut or self._is_cut(path):
            return set()
        names = set(self.inner._listdir(path))
        doubtful = {name for name in names if k.join(path, name) in self._touched}
        if not doubtful:
            return names
        sure = names - doubtful
        if len(doubtful) > _DOUBTFUL:
            keys = (key for key in self.inner._keys(path) if not self._is_gone(key))
            return sure | (doubtful & k.children(keys, path))
        return sure | {name for name in doubtful if self._shows(k.join(path, name))}

    def _shows(self, path: str) -> bool:
        """Tell whether anything of `lower` at or below `path` is left."""
        if not self._is_gone(path) and self.inner._contains(path):
            return True
        return path not in self._cut and any(not self._is_gone(key) for key in self.inner._keys(path))

    def _getsize(self, path: str) -> int:
        if self._is_mark(path):
            return 0
        if not any(True for _ in self.upper._listdir(path)) and not (path and self.upper._contains(path)):
            if path not in self._touched and not self._is_gone(path):
                return self.inner._getsize(path)  # nothing of this was changed
        return Store._getsize(self, path)

    # Writes --------------------------------------------------------------------------------------------------------

    def _admit(self, key: str) -> None:
        """Refuse a key that cannot be set here."""
        if self._is_mark(key):
            raise InvalidKeyError(key, f"{MARKS!r} is where an OverlayStore keeps what was deleted")
        if not self.capabilities.hierarchical:
            return
        flat = not self.upper.capabilities.hierarchical  # else it refuses by itself what is in the way there
        for above in k.parents(key):
            if above and ((flat and self.upper._contains(above)) or self._is_value_below(above)):
                raise ConflictError(key, self, above)
        below = set(self.upper._listdir(key)) if flat else set()
        if self._may_stand(key):
            below |= self._visible(key)
        for name in below:
            raise ConflictError(key, self, k.join(key, name))

    def _is_value_below(self, path: str) -> bool:
        """Tell whether `lower` shows a value at `path`, asking it once."""
        if self._is_gone(path) or not self._may_stand(path):
            return False
        found = self._lower_values.get(path)
        if found is None:
            found = self._lower_values[path] = self.inner._contains(path)
        return found

    def _may_stand(self, path: str) -> bool:
        """Tell whether `lower` may hold something at `path`, at the price of one listing for each directory."""
        directory = k.parent(path)
        names = self._lower_names.get(directory)
        if names is None:
            if len(self._lower_names) >= _REMEMBERED:
                self._lower_names.clear()
                self._lower_values.clear()
            names = self._lower_names[directory] = frozenset(self.inner._listdir(directory))
        return k.name(path) in names

    def _set(self, key: str, value: bytes) -> None:
        self._admit(key)
        self.upper._set(key, value)

    def _set_many(self, items: Iterable[tuple[str, bytes]]) -> None:
        def admitted() -> Iterator[tuple[str, bytes]]:
            for key, value in items:
                self._admit(key)
                yield key, value

        self.upper._set_many(admitted())

    def _delete(self, key: str) -> None:
        below = not self._is_mark(key) and not self._is_gone(key) and self.inner._contains(key)
        if not below and (self._is_mark(key) or not self.upper._contains(key)):
            raise KeyError(key)
        if below:
            # The mark first: between the two the new value is still seen, and never the old one again.
            self._delete_below([key])
        if self.upper._contains(key):
            self.upper._delete(key)

    def _delete_many(self, keys: Iterable[str]) -> None:
        wanted = [key for key in keys if not self._is_mark(key)]
        self._delete_below([key for key in wanted if not self._is_gone(key) and self.inner._contains(key)])
        self.upper._delete_many(wanted)

    def _rmdir(self, path: str) -> None:
        if not path:
            return self._clear()
        if self._is_mark(path):
            return
        self._cut_below(path)
        self.upper._rmdir(path)

    def _cut_below(self, path: str) -> None:
        if path in self._cut or self._is_cut(path) or not any(True for _ in self.inner._listdir(path)):
            return
        self.upper._set(self._mark(path, _BELOW), b"")
        self._remember(self._cut, path)

    def _rename(self, source: str, destination: str) -> None:
        self._admit(destination)
        moving = list(self._keys(source))
        value = self._contains(source)
        found = self._get_many([*moving, source] if value else moving)
        # All copied before the first is deleted: whatever fails, the source is whole.
        self._set_many((k.replace_root(key, source, destination), found[key]) for key in found)
        if moving:
            self._rmdir(source)
        if value:
            self._delete(source)

    def _clear(self) -> None:
        self._cut_below("")
        self._clear_upper()

    def _clear_upper(self) -> None:
        """Remove the values of `upper`, not the marks."""
        for name in list(self.upper._listdir("")):
            if name != MARKS:
                self.upper._rmdir(name)
                self.upper._delete_many([name])

    def _sweep(self, path: str, dry_run: bool) -> Iterable[str]:
        # What lies in `lower` is not touched before a commit.
        return self.upper._sweep(path, dry_run)

    def _flush(self) -> None:
        self.upper._flush()

    def _close(self) -> None:
        try:
            self.upper._close()
        finally:
            self.inner._close()

    # All or nothing ------------------------------------------------------------------------------------------------

    def pending(self) -> Pending:
        """Return what `commit` would do. Cost: one listing of `upper`."""
        values = (key for key in self.upper._keys("") if not self._is_mark(key))
        return Pending(tuple(sorted(values)), tuple(sorted(self._gone)), tuple(sorted(self._cut)))

    def commit(self) -> None:
        """Apply all changes to `lower`, which then shows what this store shows, and empty `upper`.

        Raises
        ------
        ReadOnlyError
            `lower` cannot be written. Nothing was changed.

        Notes
        -----
        Safe to repeat after a failure or a crash: what is seen here stays the same at every step. A reader of `lower`
        itself may see some of the changes before others.
        """
        pending = self.pending()
        if not pending:
            return
        values = pending.set
        new = frozenset(values)
        for path in sorted(self._cut):
            # What is set again below is overwritten in one step, not deleted first.
            self.inner._delete_many([key for key in self.inner._keys(path) if key not in new])
        self.inner._delete_many(sorted(self._gone - new))
        found = self.upper._get_many(values)
        self.inner._set_many((key, found[key]) for key in values)
        self.inner._flush()
        # Marks first: without them lower shows what was just written; without the values they would hide it.
        self._forget_marks()
        self._clear_upper()

    def rollback(self) -> None:
        """Forget all changes: `lower` is seen as it is. To be repeated if it fails half-way."""
        self._clear_upper()
        self._forget_marks()

    def _forget_marks(self) -> None:
        self.upper._rmdir(MARKS)
        self._read_marks()
        self._lower_names.clear()
        self._lower_values.clear()
