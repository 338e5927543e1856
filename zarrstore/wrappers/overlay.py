"""Changes kept apart from what they change, until they are committed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from zarrstore import keys as k
from zarrstore.base import Store
from zarrstore.errors import ConflictError, InvalidKeyError, UnsupportedOperation
from zarrstore.targets import Target, store_of
from zarrstore.wrappers._gate import Gate
from zarrstore.wrappers._marks import BELOW, KEY, MARKS, Marks, decode_mark, encode_mark
from zarrstore.wrappers._overlay_reads import FEW, OverlayReads

__all__ = ["MARKS", "OverlayStore", "Pending"]

#: Names of directories in `lower` are remembered for this many directories while values are set there.
_REMEMBERED = 64


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


class OverlayStore(OverlayReads):
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
    `lower` is not to be changed by others meanwhile. Threads: safe, as far as both are; `commit`, `rollback` and
    `rename` wait for the writes that are under way, and what other threads write waits for their end. A hierarchical
    overlay lists each directory of `lower` once that it writes to. Source: this package; Linux' overlayfs for the idea.

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
        self._gate = Gate()
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

    def _folded_key(self, key: str) -> str:
        return self.inner._folded_key(self.upper._folded_key(key))

    def _location(self, path: str) -> tuple[object, str]:
        return id(self), path  # it writes in one place, and reads in two

    # Marks ---------------------------------------------------------------------------------------------------------

    def _read_marks(self) -> None:
        marks = Marks()
        for mark in self.upper._keys(MARKS):
            # What is none of ours (a .DS_Store, a forged name) hides nothing, and goes with the marks at a commit.
            found = decode_mark(mark, lambda: self.upper._get(mark))  # noqa: B023 - called at once
            if found is not None:
                marks.add(*found)
        self._marks = marks

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

    # Writes --------------------------------------------------------------------------------------------------------

    def _admit(self, key: str) -> None:
        """Refuse a key that cannot be set here."""
        if self._is_mark(key):
            raise InvalidKeyError(key, f"{MARKS!r} is where an OverlayStore keeps what was deleted")
        if not self.capabilities.hierarchical:
            return
        flat = not self.upper.capabilities.hierarchical  # a hierarchical `upper` itself refuses what conflicts there
        for above in k.parents(key):
            if above and ((flat and self.upper._contains(above)) or self._is_value_below(above)):
                raise ConflictError(key, self, above)
        below = set(self.upper._listdir(key)) if flat else set()
        # Of a `lower` that cannot be listed, nobody knows what lies below `key`: such a conflict is not found.
        if self.inner.capabilities.listable and self._may_stand(key):
            below |= self._visible(key).keys()
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
        """Tell whether `lower` may hold something at `path`, at the cost of one listing for each directory."""
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
        def act() -> None:
            self._admit(key)
            self.upper._set(key, value)

        self._gate.shared(act)

    def _set_many(self, items: Iterable[tuple[str, bytes]]) -> None:
        def admitted() -> Iterator[tuple[str, bytes]]:
            for key, value in items:
                self._admit(key)
                yield key, value

        self._gate.shared(lambda: self.upper._set_many(admitted()))

    def _delete(self, key: str) -> None:
        self._gate.shared(lambda: self._hide(key))

    def _hide(self, key: str) -> None:
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
        self._gate.shared(lambda: self._hide_many(wanted))

    def _hide_many(self, wanted: Sequence[str]) -> None:
        hidden = [key for key in wanted if not self._marks.hides(key)]
        # For many keys, one listing of each directory shows which exist.
        is_there = self._may_stand if len(hidden) > FEW and self.inner.capabilities.listable else self.inner._contains
        self._hide_keys([key for key in hidden if is_there(key)])
        self.upper._delete_many(wanted)

    def _rmdir(self, path: str) -> None:
        if not path:
            return self._clear()
        if self._is_mark(path):
            return

        def act() -> None:
            self._hide_below(path)
            self.upper._rmdir(path)

        self._gate.shared(act)

    def _rename(self, source: str, destination: str) -> None:
        # Alone: what another thread set below the source after it was copied would go with it.
        self._alone("rename", lambda: self._move(source, destination))

    def _move(self, source: str, destination: str) -> None:
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
        def act() -> None:
            self._hide_below("")
            self._clear_upper()

        self._gate.shared(act)

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
        UnsupportedOperation
            This thread is within a write (its iterator commits). Nothing was changed.

        Notes
        -----
        Safe to repeat after a failure or a crash: what is seen here stays the same at every step. A reader of `lower`
        itself may see some of the changes before others. What other threads write meanwhile waits for the end of the
        commit, and is not part of it.
        """
        self._alone("commit", self._commit)

    def _alone(self, verb: str, act: Callable[[], None]) -> None:
        if self._gate.is_inside():
            raise UnsupportedOperation(
                f"{verb} within a write of the same thread", self, "do it when the write has returned"
            )
        self._gate.alone(act)

    def _commit(self) -> None:
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
        """Forget all changes: `lower` is seen as it is. If it fails half-way, call it again."""

        def act() -> None:
            self._clear_upper()
            self._forget_marks()

        self._alone("roll back", act)

    def _forget_marks(self) -> None:
        self.upper._rmdir(MARKS)
        self._read_marks()
        self._lower_names.clear()
        self._lower_values.clear()
