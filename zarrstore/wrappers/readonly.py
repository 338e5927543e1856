"""A store that can only be read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NoReturn

from zarrstore.errors import ReadOnlyError
from zarrstore.wrappers.base import Wrapper

__all__ = ["ReadOnlyStore"]


class ReadOnlyStore(Wrapper):
    """`inner`, of which nothing can be changed: every write raises ReadOnlyError before anything is done.

    Parameters
    ----------
    inner : Mapping
        The store to protect, or any mapping.

    Notes
    -----
    `flush` and `close` reach `inner`. Thread, process and crash safety are those of `inner`. Source: zarr 2's
    ``mode="r"``, which protects arrays and groups and not the store.

    Examples
    --------
    >>> store = ReadOnlyStore({"a/b": b"1"})
    >>> store["a/b"]
    b'1'
    >>> store["a/b"] = b"2"
    Traceback (most recent call last):
    zarrstore.errors.ReadOnlyError: cannot write 'a/b': ReadOnlyStore(KVStore(<dict>)) is read-only
    """

    def __init__(self, inner: Mapping[str, Any]) -> None:
        super().__init__(inner)
        self.capabilities = replace(self.inner.capabilities, writable=False, erasable=False)

    def _refuse(self, what: str) -> NoReturn:
        raise ReadOnlyError(what, self)

    # One method for each name of base.WRITES; a test counts them.

    def _set(self, key: str, value: bytes) -> None:
        self._refuse(key)

    def _delete(self, key: str) -> None:
        self._refuse(key)

    def _set_many(self, items: Iterable[tuple[str, bytes]]) -> None:
        # Refused even if there is nothing to set: whether a write is allowed does not hang on what is written.
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
