"""A store that can only be read."""

from __future__ import annotations

from dataclasses import replace

from zarrstore.refuse import RefuseWrites
from zarrstore.targets import Target
from zarrstore.wrappers.base import Wrapper

__all__ = ["ReadOnlyStore"]


class ReadOnlyStore(RefuseWrites, Wrapper):
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

    opening_mode = "r"

    def __init__(self, inner: Target) -> None:
        super().__init__(inner)
        self.capabilities = replace(self.inner.capabilities, writable=False, erasable=False)
