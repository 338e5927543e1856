"""xarray opens what `open_store` opens: ``open_dataset("x.lmdb")``, or any target with ``engine="zarrstore"``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from zarrstore.optional import require

require("xarray", extra="xarray", feature="the xarray engine")
require("zarr.abc.store", extra="zarr3", feature="the xarray engine")

from xarray.backends import BackendEntrypoint  # noqa: E402

from zarrstore.bridges.zarr3 import to_zarr3  # noqa: E402
from zarrstore.kinds import KINDS, kind_of_content, kind_of_suffix  # noqa: E402
from zarrstore.metadata.documents import ZARR_JSON, ZMETADATA  # noqa: E402
from zarrstore.registry import open_store  # noqa: E402

if TYPE_CHECKING:
    import xarray

__all__ = ["ZarrstoreBackend"]

#: Kinds that xarray itself does not open: a directory or a plain zip of Zarr is left to its own engine.
_OURS = frozenset({"lmdb", "sqlite", "dbm", "n5", "nested", "reference"})


class ZarrstoreBackend(BackendEntrypoint):
    """The engine ``"zarrstore"`` of xarray.

    Notes
    -----
    Guessed for LMDB, SQLite, DBM, N5 and reference files, and for zip archives, by content or suffix; any other target
    (a URL, a mapping, a store) with ``engine="zarrstore"``. Read only. The dataset holds the store open;
    ``Dataset.close`` closes it.

    Examples
    --------
    >>> import zarrstore, xarray, numpy
    >>> store = zarrstore.DictStore()
    >>> zarrstore.init_group(store)
    >>> zarrstore.init_array(store, shape=3, chunks=3, dtype="<i2", compressor=None, path="depth", fill_value=0)
    >>> store["depth/.zattrs"] = b'{"_ARRAY_DIMENSIONS": ["x"]}'
    >>> store["depth/0"] = numpy.array([1, 2, 3], "<i2").tobytes()
    >>> xarray.open_dataset(store, engine=ZarrstoreBackend, mask_and_scale=False)["depth"].values.tolist()
    [1, 2, 3]
    """

    description = "LMDB, SQLite, DBM, N5, zip, URLs and any mapping, through zarrstore"
    open_dataset_parameters = ("filename_or_obj", "drop_variables", "group", "storage_options", "consolidated")

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        group: str | None = None,
        storage_options: Mapping[str, Any] | None = None,
        consolidated: bool | None = None,
        mask_and_scale: bool = True,
        decode_times: Any = True,
        concat_characters: bool = True,
        decode_coords: Any = True,
        use_cftime: bool | None = None,
        decode_timedelta: Any = None,
    ) -> xarray.Dataset:
        """Open a target of `open_store` as a dataset."""
        import xarray

        store = open_store(filename_or_obj, "r", storage_options=storage_options)
        if consolidated is None and not any(name in store for name in (ZMETADATA, ZARR_JSON)):
            consolidated = False  # or zarr warns that it looked for it
        dataset: xarray.Dataset = xarray.open_zarr(
            to_zarr3(store),
            group=group,
            chunks=None,
            consolidated=consolidated,
            drop_variables=drop_variables,
            mask_and_scale=mask_and_scale,
            decode_times=decode_times,
            concat_characters=concat_characters,
            decode_coords=decode_coords,
            use_cftime=use_cftime,
            decode_timedelta=decode_timedelta,
        )
        close = getattr(dataset, "_close", None)

        def close_all() -> None:
            if close is not None:
                close()
            store.close()

        dataset.set_close(close_all)
        return dataset

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Tell whether a path is of a kind that only this engine opens."""
        if not isinstance(filename_or_obj, str | os.PathLike):
            return False
        path = os.path.expanduser(str(filename_or_obj))
        kind = kind_of_content(path) if "://" not in path and os.path.exists(path) else kind_of_suffix(path)
        return kind is not None and (kind.name in _OURS or kind.name == KINDS["zip"].name)
