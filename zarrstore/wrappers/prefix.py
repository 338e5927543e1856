"""A part of a store as a store of its own."""

from __future__ import annotations

from zarrstore import keys as k
from zarrstore.base import Store
from zarrstore.targets import Target
from zarrstore.wrappers.base import Wrapper

__all__ = ["PrefixStore"]


class PrefixStore(Wrapper):
    """The part of `inner` below `path`, seen as a store of its own; nothing outside of it can be named.

    Parameters
    ----------
    inner : Mapping
        The whole store, or any mapping.
    path : str
        A directory of it, which need not exist yet; ``""`` is the whole.

    Raises
    ------
    InvalidPathError, InvalidKeyError
        No key can stand below `path`.

    Notes
    -----
    Cost: that of `inner`, at a longer key; emptying it and counting its keys go through the keys below `path`. `close`
    closes `inner`. Thread, process and crash safety are those of `inner`. Source: zarr 2's ``path=`` argument, as a
    store.

    Examples
    --------
    >>> whole = {"exp/run/0.0": b"1", "experiment/x": b"2"}
    >>> part = PrefixStore(whole, "exp")
    >>> part["run/0.1"] = b"3"
    >>> sorted(part), sorted(whole)
    (['run/0.0', 'run/0.1'], ['exp/run/0.0', 'exp/run/0.1', 'experiment/x'])
    """

    passes_buffers = True

    def __init__(self, inner: Target, path: object) -> None:
        super().__init__(inner)
        self.path = k.normalize_path(path)
        if self.path:
            k.check_key(self.path)

    def __repr__(self) -> str:
        return f"PrefixStore({self.inner!r}, {self.path!r})"

    def _place(self) -> object:
        place = super()._place()
        return None if place is None else (place, self.path)

    def _to_inner(self, path: str) -> str:
        return k.join(self.path, path)

    def _from_inner(self, key: str) -> str:
        return k.replace_root(key, self.path, "")

    def _count(self) -> int:
        # Not forwarded: the keys of inner are more.
        return sum(1 for _ in self._keys(""))

    def _getsize(self, path: str) -> int:
        # A flat store may hold a value at the root of this one, which is not in it.
        if self.path and not path and self.inner._contains(self.path):
            return Store._getsize(self, "")
        return super()._getsize(path)

    def _clear(self) -> None:
        # Not forwarded either: inner keeps the rest.
        if self.path:
            self.inner._rmdir(self.path)
        else:
            self.inner._clear()
