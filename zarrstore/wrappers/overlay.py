"""Changes kept apart from what they change, until they are committed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from zarrstore import keys as k
from zarrstore.base import Entry, Store
from zarrstore.batch import AheadItems, LazyItems
from zarrstore.errors import ConflictError, InvalidKeyError
from zarrstore.targets import Target, store_of
from zarrstore.wrappers._marks import BELOW, KEY, MARKS, Marks, decode_mark, encode_mark
from zarrstore.wrappers.base import Wrapper

__all__ = ["MARKS", "OverlayStore", "Pending"]

#: Names of directories in `lower` are remembered for this many directories while values are set there.
_REMEMBERED = 64
#: Up to this many names are checked one by one; for more, one listing is cheaper.
_FEW = 8


@dataclass(frozen=True)
class Pending:
    """What `commit` would do, sorted.

    Parameters
    ----------
    set : tuple of str
        Keys whose values are new.
    deleted : tuple of str
        Keys of `lower` that are deleted here.
    removed_below : tuple of str
        Paths of `lower` below which everything is deleted; ``""`` is the whole.
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
    `upper` is flushed, deletions are applied to `lower`, then values, `lower` is flushed, then the marks are removed,
    `upper` is flushed, and the values are removed last; after a crash or a power cut, open the two again and commit
    again. What is read from `upper` is judged as a key: a name that someone else put among the marks changes nothing.
    Over a `lower` that cannot be listed, listings and `rename` are refused. One overlay at a time on one `upper`;
    `lower` is not to be changed by others meanwhile. Threads: safe, as far as both are. A hierarchical overlay lists
    each directory of `lower` once that it writes to. Source: this package; Linux' overlayfs for the idea.

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

    opening_mode = "r"

    def __init__(self, lower: Target, upper: Target) -> None:
        super().__init__(lower)
        self.upper = store_of(upper, "a")
        self._aliases = self.inner._aliases or self.upper._aliases
        self.takes_buffers = self.upper.takes_buffers
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
        self._marks = Marks()
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
        marks = Marks()
        for mark in self.upper._keys(MARKS):
            # What is none of ours (a .DS_Store, a forged name) hides nothing, and goes with the marks at a commit.
            found = decode_mark(mark, lambda: self.upper._get(mark))  # noqa: B023 - called at once
            if found is not None:
                marks.add(*found)
        self._marks = marks

    @staticmethod
    def _is_mark(path: str) -> bool:
        return path == MARKS or k.is_below(path, MARKS)

    def _hide_keys(self, keys: Sequence[str]) -> None:
        """Mark keys of `lower` as deleted."""
        if keys:
            self.upper._set_many(encode_mark(KEY, key) for key in keys)
        for key in keys:
            self._marks.add(KEY, key)

    def _hide_below(self, path: str) -> None:
        """Mark everything of `lower` below a path as deleted, if there is anything."""
        if self._marks.hides_below(path):
            return
        if self.inner.capabilities.listable and not any(True for _ in self.inner._listdir(path)):
            return
        self.upper._set(*encode_mark(BELOW, path))
        self._marks.add(BELOW, path)

    # Reads ---------------------------------------------------------------------------------------------------------

    def _holder(self, key: str) -> Store:
        """Return the store that has the key, if one has."""
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
                yield _told_apart(entry, "upper")
        if self._marks.hides_below(path):
            return
        for entry in self.inner._details(path):
            if entry.key not in above and not self._marks.hides(entry.key) and not self._is_mark(entry.key):
                yield _told_apart(entry, "lower")

    def _entry(self, key: str) -> Entry:
        holder = self._holder(key)
        return _told_apart(holder._entry(key), "upper" if holder is self.upper else "lower")

    def _count(self) -> int:
        return sum(1 for _ in self._keys(""))

    def _listdir(self, path: str) -> Iterable[str]:
        if self._is_mark(path):
            return set()
        names = set(self.upper._listdir(path)) | self._visible(path)
        return names if path else names - {MARKS}

    def _visible(self, path: str) -> set[str]:
        """Return the names that `lower` shows through at `path`."""
        if self._marks.hides_below(path):
            return set()
        names = set(self.inner._listdir(path))
        doubtful = {name for name in names if self._marks.may_hide(k.join(path, name))}
        if not doubtful:
            return names
        sure = names - doubtful
        if len(doubtful) > _FEW:
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
        # A store that cannot be listed does not tell what lies below `key`: that goes unseen.
        if self.inner.capabilities.listable and self._may_stand(key):
            below |= self._visible(key)
        for name in below:
            raise ConflictError(key, self, k.join(key, name))

    def _is_value_below(self, path: str) -> bool:
        """Tell whether `lower` shows a value at `path`, asking it once."""
        if self._marks.hides(path) or not self._may_stand(path):
            return False
        found = self._lower_values.get(path)
        if found is None:
            if len(self._lower_values) >= _REMEMBERED:
                self._lower_values.clear()
            found = self._lower_values[path] = self.inner._contains(path)
        return found

    def _may_stand(self, path: str) -> bool:
        """Tell whether `lower` may hold something at `path`, at the price of one listing for each directory."""
        if not self.inner.capabilities.listable:
            return True
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
        below = not self._is_mark(key) and not self._marks.hides(key) and self.inner._contains(key)
        if not below and (self._is_mark(key) or not self.upper._contains(key)):
            raise KeyError(key)
        if below:
            # The mark first: between the two the new value is still seen, and never the old one again.
            self._hide_keys([key])
        if self.upper._contains(key):
            self.upper._delete(key)

    def _delete_many(self, keys: Iterable[str]) -> None:
        wanted = [key for key in keys if not self._is_mark(key)]
        hidden = [key for key in wanted if not self._marks.hides(key)]
        # For many keys, one listing of each directory shows which exist.
        is_there = self._may_stand if len(hidden) > _FEW and self.inner.capabilities.listable else self.inner._contains
        self._hide_keys([key for key in hidden if is_there(key)])
        self.upper._delete_many(wanted)

    def _rmdir(self, path: str) -> None:
        if not path:
            return self._clear()
        if self._is_mark(path):
            return
        self._hide_below(path)
        self.upper._rmdir(path)

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
        self._hide_below("")
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
        return Pending(tuple(sorted(values)), tuple(sorted(self._marks.keys)), tuple(sorted(self._marks.directories)))

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
        new = frozenset(pending.set)
        # Each flush makes a step durable before the next one undoes what it rests on: after a power cut, what is not
        # yet in `lower` is still in `upper`.
        self.upper._flush()
        for path in pending.removed_below:
            # What is set again below is overwritten in one step, not deleted first.
            self._delete_in_lower(path, new)
        self.inner._delete_many(sorted(self._marks.keys - new))
        found = self.upper._get_many(pending.set)
        self.inner._set_many((key, found[key]) for key in pending.set)
        self.inner._flush()
        # Marks first: without them lower shows what was just written; without the values they would hide it.
        self._forget_marks()
        self.upper._flush()
        self._clear_upper()
        self.upper._flush()

    def _delete_in_lower(self, path: str, kept: frozenset[str]) -> None:
        if self.inner.capabilities.listable:
            self.inner._delete_many([key for key in self.inner._keys(path) if key not in kept])
        else:
            self.inner._rmdir(path)

    def rollback(self) -> None:
        """Forget all changes: `lower` is seen as it is. To be repeated if it fails half-way."""
        self._clear_upper()
        self._forget_marks()

    def _forget_marks(self) -> None:
        self.upper._rmdir(MARKS)
        self._read_marks()
        self._lower_names.clear()
        self._lower_values.clear()


def _told_apart(entry: Entry, side: str) -> Entry:
    """Return an entry whose identity is that of no value of the other store."""
    return entry._replace(identity=f"{side} {entry.identity}") if entry.identity else entry
