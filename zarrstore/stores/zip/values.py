"""The values of an archive, by their keys below its root: the driver methods of `ZipStore`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from zarrstore import keys as k
from zarrstore.base import Entry
from zarrstore.batch import AheadItems, LazyItems
from zarrstore.driver import Extent
from zarrstore.errors import ClosedStoreError
from zarrstore.spans import Span
from zarrstore.stores.zip.format import QUICK_FIELDS
from zarrstore.stores.zip.life import HeldArchive
from zarrstore.stores.zip.writer import QUICK, Writer

__all__ = ["ArchiveValues"]

#: Bytes of a batch that are written at a time.
_BATCH = 1 << 20
#: Bytes of a batch that are read at a time from an archive behind requests.
_AHEAD = 16 << 20


class ArchiveValues(HeldArchive):
    """The values of the archive that is held; `ZipStore` without what it does to the archive as such."""

    takes_buffers = True

    # Reading -------------------------------------------------------------------------------------------------------

    def _get(self, key: str) -> bytes:
        archive = self._archive
        if archive is None:
            raise ClosedStoreError(self)
        return archive.get(key)

    def _contains(self, key: str) -> bool:
        return self._opened().directory.find(key) is not None

    def _get_range(self, key: str, start: int, stop: int | None) -> bytes:
        return self._opened().get_part(key, start, stop)

    def _get_ranges(self, key: str, spans: Sequence[Span]) -> list[bytes]:
        return self._opened().get_parts(key, spans)

    def _get_suffix(self, key: str, n: int) -> bytes:
        return self._opened().get_suffix(key, n)

    def _get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        archive = self._opened()
        if not archive.is_remote:
            return LazyItems(self._get, keys)
        records = filter(None, map(archive.directory.find, keys))
        sizes = [len(record) + QUICK_FIELDS.unpack_from(record)[2] for record in records]
        first = len(sizes) * _AHEAD // (sum(sizes) or 1)
        return AheadItems(archive.get_many, keys, budget=_AHEAD, first=max(1, first))

    def _nbytes(self, key: str) -> int:
        return self._opened().size_of(key)

    def _keys(self, path: str) -> Iterable[str]:
        directory = self._opened().directory
        names, root = directory.names_below(path), directory.root
        return [k.replace_root(name, root, "") for name in names] if root else iter(names)

    def _details(self, path: str) -> Iterable[Entry]:
        archive = self._opened()
        for key in self._keys(path):
            with suppress(KeyError):  # deleted meanwhile
                entry = archive.entry(key)
                yield Entry(key, entry.size, f"{entry.crc:08x}-{entry.size}", f"crc32:{entry.crc:08x}")

    def _extent(self, key: str) -> Extent | None:
        found = self._opened().stored_place(key)
        if found is None:
            return None
        if self._source is None:
            return Extent(self.path, *found)
        tell = getattr(self._source, "extent", None)
        whole = None if tell is None else tell()
        return None if whole is None else Extent(whole.url, whole.start + found[0], found[1])

    def _count(self) -> int:
        return len(self._opened().directory.names_below(""))

    def _listdir(self, path: str) -> Iterable[str]:
        return self._opened().directory.children(path)

    # Writing -------------------------------------------------------------------------------------------------------

    def _set(self, key: str, value: bytes) -> None:
        with self._mutex:
            archive = self._archive
            if type(archive) is not Writer:
                archive = self._writer(key)
            archive.set(key, value)

    def _set_many(self, items: Iterable[tuple[str, bytes]]) -> None:
        batch: list[tuple[str, bytes]] = []
        size = 0
        with self._mutex:
            self._writer("values")
        try:
            # Values are drawn without the lock: where they come from may be slow, or this store itself.
            for key, value in items:
                nbytes = len(value)
                if type(value) is not bytes:
                    # The caller's memory, which may hold the next value as soon as that is drawn.
                    if nbytes > QUICK:
                        self._set_batch(batch)
                        batch, size = [], 0
                        self._set(key, value)
                        continue
                    value = bytes(value)
                batch.append((key, value))
                size += nbytes + 100
                if size > _BATCH:
                    self._set_batch(batch)
                    batch, size = [], 0
        finally:
            self._set_batch(batch)

    def _set_batch(self, batch: list[tuple[str, bytes]]) -> None:
        if batch:
            with self._mutex:
                self._writer(batch[0][0]).set_many(batch)

    def _delete(self, key: str) -> None:
        with self._mutex:
            writer = self._writer(key)
            if writer.directory.find(key) is None:
                raise KeyError(key)
            writer.delete([k.join(writer.directory.root, key)])

    def _delete_many(self, keys: Iterable[str]) -> None:
        wanted = dict.fromkeys(keys)
        with self._mutex:
            writer = self._writer("values")
            root = writer.directory.root
            names = [k.join(root, key) for key in wanted if writer.directory.find(key) is not None]
            if names:
                writer.delete(names)

    def _rmdir(self, path: str) -> None:
        with self._mutex:
            self._writer(path).delete_below(path)

    def _rename(self, source: str, destination: str) -> None:
        with self._mutex:
            writer = self._writer(source)
            moving = [(key, k.replace_root(key, source, destination)) for key in self._keys(source)]
            if writer.directory.find(source) is not None:
                moving.append((source, destination))
            root = writer.directory.root
            writer.move((k.join(root, old), k.join(root, new)) for old, new in moving)
