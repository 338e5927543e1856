"""A zarr 2 LMDB file in zarr 3 and xarray, in five lines.

Run it from the project's folder: ``python examples/05_zarr2_lmdb_in_zarr3.py``. Needs zarr 3 and xarray: ``pip
install zarrstore[zarr3] xarray``.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np

LEGACY = Path(__file__).resolve().parent.parent / "tests" / "data" / "v2"


def main() -> None:
    """Open the genuine file that zarr 2.18.7 wrote, and compare what both read with what zarr 2 read."""
    with tempfile.TemporaryDirectory() as folder:
        path = shutil.copytree(LEGACY / "legacy.lmdb", Path(folder) / "legacy.lmdb")

        import xarray
        import zarr

        from zarrstore import LMDBStore, OverlayStore
        from zarrstore.bridges.zarr3 import to_zarr3

        # The five lines. The file stays as it is: what xarray misses (names of axes) is laid over it.
        store = OverlayStore(LMDBStore(path, readonly=True), {})
        store["ocean/surface/flags/.zattrs"] = b'{"_ARRAY_DIMENSIONS": ["lat", "lon"]}'
        group = zarr.open_group(to_zarr3(store), mode="r", zarr_format=2, use_consolidated=False)
        array = group["ocean/surface/temperature"]
        dataset = xarray.open_zarr(to_zarr3(store), group="ocean/surface", zarr_format=2, consolidated=False)

        wanted = np.load(LEGACY / "expected" / "ocean__surface__temperature.npy")
        print(array)
        print(dataset)
        assert np.array_equal(array[...], wanted, equal_nan=True)
        assert dataset["temperature"].dims == ("time", "lat", "lon")
        values = dataset["temperature"].values
        store.close()
        assert np.array_equal(values, wanted, equal_nan=True)


if __name__ == "__main__":
    main()
