"""xarray's own tests of its Zarr backend, over our stores and over zarr's directory store; collected where named."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import xarray.tests.test_backends as suite

from tests.bridges.zarr3_suite import MAKERS
from zarrstore import as_store
from zarrstore.bridges.zarr3 import to_zarr3

#: A fixture of theirs that these ask for; the others come by ``-p xarray.tests.conftest``.
default_zarr_format = suite.default_zarr_format

#: zarr's own, against which ours are compared.
TestZarrDirectoryStore = suite.TestZarrDirectoryStore


class Over(suite.ZarrBase):  # type: ignore[misc]
    """The tests over a store of ours, new for each."""

    name = ""

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder, self.count = tmp_path, 0

    @contextlib.contextmanager
    def create_zarr_target(self) -> Iterator[Any]:
        self.count += 1
        folder = self.folder / str(self.count)
        folder.mkdir()
        with as_store(MAKERS[self.name](folder)) as store:
            yield to_zarr3(store)


for _name in (
    "DictStore",
    "DirectoryStore",
    "NestedDirectoryStore",
    "ZipStore",
    "LMDBStore",
    "SQLiteStore",
    "LRUStoreCache",
):
    globals()[f"TestOver{_name}"] = type(f"TestOver{_name}", (Over,), {"name": _name})
del Over
