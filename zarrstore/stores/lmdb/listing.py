"""The part of `LMDBStore` that is about ranges of keys: listings, counts, directories."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from zarrstore import keys as k
from zarrstore.base import Entry, Store
from zarrstore.stores.lmdb.ranges import SCAN, as_name, as_text, bounds, some_children, some_keys, some_sizes

__all__ = ["KeyRanges"]


class KeyRanges(Store):
    """A store whose keys stand in the order of their bytes in an LMDB environment.

    Notes
    -----
    The keys below a path stand in one piece of the order, from prefix(path) up to beyond(path). 'foo-' and 'foo.bar'
    sort before 'foo/x', so a value and a directory of one name need not be neighbours.
    """

    _env: Any
    _lmdb: Any

    @abstractmethod
    def _write(self, work: Callable[[Any], Any], what: str, nbytes: int = 0) -> Any:
        """Return ``work(transaction)``, committed."""

    @abstractmethod
    def _too_large(self, key: str, nbytes: int) -> Exception:
        """Return the error for a key or a value that LMDB refuses."""

    def _keys(self, path: str) -> Iterator[str]:
        start, end = bounds(path)
        last: bytes | None = None
        while True:
            names = self._env.read(lambda txn: some_keys(txn, start, end, last))  # noqa: B023
            keys = list(map(as_text, names))
            yield from keys if k.are_keys(keys) else filter(k.is_key, keys)
            if len(names) < SCAN:
                return
            last = names[-1]

    def _details(self, path: str) -> Iterator[Entry]:
        start, end = bounds(path)
        last: bytes | None = None
        while True:
            sizes = self._env.read(lambda txn: some_sizes(txn, start, end, last), buffers=True)  # noqa: B023
            for name, nbytes in sizes:
                if k.is_key(key := as_text(name)):
                    yield Entry(key, nbytes)
            if len(sizes) < SCAN:
                return
            last = sizes[-1][0]

    def _count(self) -> int:
        # The number that LMDB keeps counts names that are no keys too, which another program put there.
        entries, state = self._env.read(lambda txn: (txn.stat()["entries"], txn.id()))
        foreign: int | None = self._env.foreign_names(state)
        if foreign is None:
            foreign = 0
            last: bytes | None = None
            while names := self._env.read(lambda txn: some_keys(txn, b"", b"\xff\xff", last)):  # noqa: B023
                keys = list(map(as_text, names))
                if not k.are_keys(keys):
                    foreign += sum(not k.is_key(key) for key in keys)
                last = names[-1]
            self._env.note_foreign_names(state, foreign)
        return int(entries) - foreign

    def _children(self, path: str) -> Iterator[tuple[str, int | None]]:
        start, end = bounds(path)
        while True:
            children, start = self._env.read(lambda txn: some_children(txn, start, end, path), buffers=True)  # noqa: B023
            yield from children
            if not start:
                return

    def _listdir(self, path: str) -> Iterator[str]:
        values = set()
        for name, size in self._children(path):
            if size is not None:
                values.add(name)
            elif name in values:
                continue
            yield name

    def _getsize(self, path: str) -> int:
        if path:
            with suppress(KeyError):
                return self._nbytes(path)
        return sum(size for _, size in self._children(path) if size is not None)

    def _write_below(self, work: Callable[[Any], Any], what: str) -> None:
        """Do what may also touch names that are no keys."""

        def work_and_forget(txn: Any) -> None:
            self._env.note_foreign_names(-1, 0)
            work(txn)

        self._write(work_and_forget, what)

    def _rmdir(self, path: str) -> None:
        start, end = bounds(path)

        def delete_all(txn: Any) -> None:
            cursor = txn.cursor()
            found = cursor.set_range(start)
            while found and cursor.key() < end:
                cursor.delete()
                found = bool(cursor.key())

        if path:
            self._write_below(delete_all, path)
        else:
            self._clear()

    def _clear(self) -> None:
        env = self._env
        self._write_below(lambda txn: txn.drop(env.env.open_db(txn=txn), delete=False), "")

    def _rename(self, source: str, destination: str) -> None:
        start, end = bounds(source)
        new = b""
        name = source.encode()

        def move(txn: Any, old: bytes) -> None:
            nonlocal new
            new = as_name(k.replace_root(as_text(old), source, destination))
            txn.put(new, txn.pop(old))

        def move_all(txn: Any) -> None:
            if txn.get(name) is not None:
                move(txn, name)
            while names := some_keys(txn, start, end, None):
                for old in names:
                    move(txn, old)

        try:
            self._write_below(move_all, source)
        except self._lmdb.BadValsizeError:
            raise self._too_large(as_text(new), 0) from None
