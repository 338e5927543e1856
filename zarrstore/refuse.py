"""A store that cannot be written: the refusal of every write, once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

from zarrstore.base import Store
from zarrstore.errors import ReadOnlyError

__all__ = ["RefuseWrites"]


class RefuseWrites(Store):
    """Base, beside a store's or wrapper's own, of what can only be read: every write raises ReadOnlyError.

    Notes
    -----
    It has one method for each name of `base.WRITES`. A batch is refused even if it is empty: whether a write is
    allowed does not depend on what is written. The store's `capabilities` must say ``writable=False`` and
    ``erasable=False``.

    Examples
    --------
    >>> from zarrstore import ReadOnlyStore
    >>> ReadOnlyStore({"a": b"1"}).rmdir("a")
    Traceback (most recent call last):
    zarrstore.errors.ReadOnlyError: cannot write 'a': ReadOnlyStore(KVStore(<dict>)) is read-only
    """

    def _refuse(self, what: str) -> NoReturn:
        raise ReadOnlyError(what, self)

    def _set(self, key: str, value: bytes) -> None:
        self._refuse(key)

    def _delete(self, key: str) -> None:
        self._refuse(key)

    def _set_many(self, items: Iterable[tuple[str, bytes]]) -> None:
        self._refuse(next((key for key, _ in items), ""))

    def _delete_many(self, keys: Iterable[str]) -> None:
        self._refuse(next(iter(keys), ""))

    def _rmdir(self, path: str) -> None:
        self._refuse(path)

    def _rename(self, source: str, destination: str) -> None:
        self._refuse(source)

    def _clear(self) -> None:
        self._refuse("")

    def _sweep(self, path: str, dry_run: bool) -> Iterable[str]:
        self._refuse(path)
