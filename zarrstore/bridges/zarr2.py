"""Importing this makes our stores first-class in zarr 2: it then calls their own methods.

zarr 2 takes any mapping, and wraps it in a KVStore that knows nothing but its keys: chunks are read one by one,
directories are found by listing everything, and a rename strips characters. What derives from zarr's own ``Store`` is
left as it is. So each of our stores is registered as one, and ``getitems``, ``setitems``, ``delitems``, ``listdir``,
``rmdir``, ``rename``, ``getsize`` and the dimension separator reach it::

    import zarrstore.bridges.zarr2

    zarr.open_group(LRUStoreCache(FSStore("s3://bucket/data.zarr"), 2e9))

Reading 100 chunks over a store with a delay of 20 ms and batches of its own takes one batch instead of 200 requests.
A process that unpickles an array imports this too, or it reads one by one.

Examples
--------
>>> import zarr
>>> from zarrstore import DictStore
>>> from zarrstore.testing import CountingStore
>>> store = CountingStore(DictStore())
>>> array = zarr.create(shape=100, chunks=1, dtype="i4", store=store)
>>> array[:] = 7
>>> store.reset()
>>> int(array[:].sum()), dict(store.calls), array.store is store
(700, {'_get_many': 1}, True)
"""

from __future__ import annotations

from zarrstore.base import Store
from zarrstore.optional import require

__all__ = ["register"]


def register() -> None:
    """Tell zarr 2 that our stores are stores. Importing the module has done so; doing it again changes nothing.

    Raises
    ------
    MissingDependencyError
        zarr is not installed, or is zarr 3, for which there is `zarrstore.bridges.zarr3`.

    Examples
    --------
    >>> from zarr.storage import BaseStore
    >>> from zarrstore import DictStore
    >>> register()
    >>> isinstance(DictStore(), BaseStore)
    True
    """
    theirs = require("zarr._storage.store", extra="zarr2", feature="zarrstore.bridges.zarr2")
    theirs.Store.register(Store)
    # How documents are read and written: zarr asks the store.
    Store._metadata_class = theirs.Metadata2  # type: ignore[attr-defined]


register()
