"""Values that lie in other files, as a reference file says: Kerchunk's JSON and Parquet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

from zarrstore.adapt import as_store
from zarrstore.allowance import allowance
from zarrstore.base import Capabilities, Entry, Store
from zarrstore.batch import AheadItems
from zarrstore.bridges.references.document import DocumentReferences, Reference, parsed, sizes
from zarrstore.bridges.references.parquet import ParquetReferences
from zarrstore.errors import InvalidPathError, StoreReadError
from zarrstore.refuse import RefuseWrites
from zarrstore.spans import Span
from zarrstore.threads import Threads
from zarrstore.urls import without_secrets

__all__ = ["ReferenceStore"]

#: Keys of a batch whose sizes are looked up in the references before the first request.
_SIZED = 128

#: Finds a target: a store, and the key of the target there.
Targets = Callable[[str], tuple[Mapping[str, Any], str]]
#: Targets that are read from at a time.
_AT_ONCE = 16


class ReferenceStore(RefuseWrites):
    """Read the values that a reference file points to: parts of other files, whole files, or texts in it.

    Parameters
    ----------
    references : mapping or bytes
        A reference file of version 0 or 1: what its JSON holds, or the JSON itself. For Parquet see `from_parquet`.
    targets : callable
        ``targets(url) -> (mapping, key)``: where a target is read. `open_store` brings one for paths, HTTP, S3,
        memory and all that fsspec knows.
    target : str, optional
        The target of references that name none.
    label : str
        What errors call the reference file.

    Raises
    ------
    DamagedStoreError
        The document is no reference file, or an entry of it none.

    Notes
    -----
    Nothing can be written. Keys are judged as in any store: a name of the document that is no key is absent and not
    listed, and `verify` tells it. A target that is missing or shorter than its reference is StoreReadError and never
    absence, where fsspec's reader of Parquet shows fill values.

    Cost: the document is held in memory, Parquet in tables that are read when they are asked for. In a batch, parts of
    one target that lie within 64 KiB of each other are read by one request, whole targets as their store's batch, and
    16 targets at a time. Templates that are more than a name, and ``gen``, need Jinja, and are rendered in its sandbox.
    Threads: safe. Pickles with its references and as `targets` does. Source: Kerchunk's specification of versions 0 and
    1, and fsspec 2026.9 for Parquet.

    Examples
    --------
    >>> files = {"data.bin": b"0123456789"}
    >>> store = ReferenceStore({"a/0": ["data.bin", 2, 3], "b": "text"}, targets=lambda url: (files, url))
    >>> store["a/0"], store["b"], sorted(store), store.getrange("a/0", 1, 9)
    (b'234', b'text', ['a/0', 'b'], b'34')
    """

    capabilities = Capabilities(writable=False, erasable=False, ranged=True, concurrent=True)

    def __init__(
        self,
        references: Mapping[str, Any] | bytes,
        targets: Targets,
        *,
        target: str | None = None,
        label: str = "references",
    ) -> None:
        document = parsed(references, label) if isinstance(references, bytes) else references
        self._begin(DocumentReferences(document, label), targets, target, label)

    @classmethod
    def from_parquet(
        cls, files: Mapping[str, Any], targets: Targets, *, target: str | None = None, label: str = "references"
    ) -> Self:
        """Return the store of a folder of Parquet tables, given as a mapping of its files."""
        store = cls.__new__(cls)
        store._begin(ParquetReferences(as_store(files), label), targets, target, label)
        return store

    def _begin(
        self, references: DocumentReferences | ParquetReferences, targets: Targets, target: str | None, label: str
    ) -> None:
        self._references = references
        self._targets = targets
        self._default = target
        self.label = label

    def __repr__(self) -> str:
        return f"ReferenceStore({without_secrets(self.label)!r})"

    def _url(self, key: str, found: Reference) -> str:
        url = self._default if found.url is None else found.url
        if not url:
            raise StoreReadError(key, self, "its reference names no target; pass target=", permanent=True)
        return url

    def _place_of(self, key: str, url: str) -> tuple[Store, str]:
        try:
            mapping, name = self._targets(url)
        except (KeyError, InvalidPathError) as exc:
            raise self._failure(key, url, f"cannot be read: {exc}") from exc
        return as_store(mapping), name

    def _failure(self, key: str, url: str, reason: str) -> StoreReadError:
        return StoreReadError(key, self, f"its target {without_secrets(url)!r} {reason}", permanent=True)

    def _read(self, key: str, found: Reference, spans: Sequence[Span]) -> list[bytes]:
        """Return parts of a value that lies in a target, clipped at its end."""
        url = self._url(key, found)
        store, name = self._place_of(key, url)
        try:
            if found.nbytes is None:
                return store._get_ranges(name, spans)
            limits = [(min(a, found.nbytes), found.nbytes if b is None else min(b, found.nbytes)) for a, b in spans]
            parts = store._get_ranges(name, [(found.start + a, found.start + max(a, b)) for a, b in limits])
        except KeyError as exc:
            raise self._failure(key, url, "is missing") from exc
        for part, (start, stop) in zip(parts, limits, strict=True):
            self._check(key, url, part, max(0, stop - start))
        return parts

    def _check(self, key: str, url: str, part: bytes, nbytes: int) -> None:
        if len(part) != nbytes:
            raise self._failure(key, url, f"ends within it: {nbytes:,} bytes are wanted, {len(part):,} are there")

    # Reading -------------------------------------------------------------------------------------------------------

    def _get(self, key: str) -> bytes:
        found = self._references.find(key)
        if isinstance(found, bytes):
            return found
        if found.nbytes is not None:
            return self._read(key, found, [(0, found.nbytes)])[0]
        url = self._url(key, found)
        store, name = self._place_of(key, url)
        try:
            return store._get(name)
        except KeyError as exc:
            raise self._failure(key, url, "is missing") from exc

    def _contains(self, key: str) -> bool:
        return key in self._references

    def _get_range(self, key: str, start: int, stop: int | None) -> bytes:
        return self._get_ranges(key, [(start, stop)])[0]

    def _get_ranges(self, key: str, spans: Sequence[Span]) -> list[bytes]:
        found = self._references.find(key)
        if isinstance(found, bytes):
            return [found[start:stop] for start, stop in spans]
        return self._read(key, found, spans)

    def _get_suffix(self, key: str, n: int) -> bytes:
        size = self._nbytes(key)
        return self._get_range(key, max(0, size - n), size) if size >= 0 else super()._get_suffix(key, n)

    def _nbytes(self, key: str) -> int:
        found = self._references.find(key)
        if isinstance(found, bytes):
            return len(found)
        if found.nbytes is not None:
            return found.nbytes
        url = self._url(key, found)
        store, name = self._place_of(key, url)
        try:
            return store._nbytes(name)
        except KeyError as exc:
            raise self._failure(key, url, "is missing") from exc

    def _get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        total, budget = sum(sizes(found for _, found in self._found(keys[:_SIZED]))), allowance().nbytes
        first = _SIZED if total <= budget else max(1, _SIZED * budget // total)
        return AheadItems(self._fetch, keys, first=first)

    def _found(self, keys: Iterable[str]) -> Iterator[tuple[str, bytes | Reference]]:
        for key in keys:
            try:
                yield key, self._references.find(key)
            except KeyError:
                continue

    def _fetch(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Return the values of those keys that there are: what lies in one target is read together."""
        values: dict[str, bytes] = {}
        parts: dict[str, list[tuple[str, Reference]]] = {}
        for key, found in self._found(keys):
            if isinstance(found, bytes):
                values[key] = found
            else:
                parts.setdefault(self._url(key, found), []).append((key, found))
        jobs = list(parts.items())
        if len(jobs) < 2:
            results = [self._fetch_from(*job) for job in jobs]
        else:
            with Threads(min(_AT_ONCE, len(jobs)), "zarrstore-targets") as pool:
                results = list(pool.map(lambda job: self._fetch_from(*job), jobs))
        for result in results:
            values.update(result)
        return values

    def _fetch_from(self, url: str, wanted: Sequence[tuple[str, Reference]]) -> dict[str, bytes]:
        first = wanted[0][0]
        if any(found.nbytes is None for _, found in wanted):
            return {key: self._get(key) for key, _ in wanted}
        store, name = self._place_of(first, url)
        spans = [(found.start, found.start + (found.nbytes or 0)) for _, found in wanted]
        try:
            values = store._get_ranges(name, spans)
        except KeyError as exc:
            raise self._failure(first, url, "is missing") from exc
        for (key, found), value in zip(wanted, values, strict=True):
            self._check(key, url, value, found.nbytes or 0)
        return {key: value for (key, _), value in zip(wanted, values, strict=True)}

    # Listing -------------------------------------------------------------------------------------------------------

    def _keys(self, path: str) -> Iterable[str]:
        return self._references.keys(path)

    def _details(self, path: str) -> Iterable[Entry]:
        for key, found in self._found(self._references.keys(path)):
            if isinstance(found, bytes):
                yield Entry(key, len(found))
            else:
                yield Entry(key, -1 if found.nbytes is None else found.nbytes)

    def _listdir(self, path: str) -> Iterable[str]:
        return self._references.children(path)

    def _irregular(self, path: str) -> Iterable[tuple[str, str]]:
        return ((name, "the reference file has it, and it is no key") for name in self._references.refused())

    def _close(self) -> None:
        close = getattr(self._targets, "close", None)
        if close is not None:
            close()
