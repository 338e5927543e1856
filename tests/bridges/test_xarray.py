"""xarray opens what zarrstore opens, with nothing imported before."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import zarrstore
from zarrstore.metadata import v2
from zarrstore.metadata.chunk import encode_chunk

xarray = pytest.importorskip("xarray", reason="needs xarray: pip install zarrstore[xarray]")
pytest.importorskip("zarr", minversion="3", reason="needs zarr 3: pip install zarrstore[xarray]")

VALUES = np.arange(12, dtype="<i4").reshape(3, 4)
NAMES = ["x.lmdb", "x.sqlite", "x.zip", "x.n5", "x.dbm"]


def write(target):
    with zarrstore.open_store(target) as store:
        zarrstore.init_group(store)
        dtype = ">i4" if Path(target).suffix == ".n5" else "<i4"
        zarrstore.init_array(store, (3, 4), (2, 2), dtype, None, 0, path="depth")
        store["depth/.zattrs"] = b'{"_ARRAY_DIMENSIONS": ["y", "x"], "units": "m"}'
        meta = v2.decode_array(store["depth/.zarray"])
        for i, j in np.ndindex(*meta.grid_shape):
            chunk = np.zeros((2, 2), dtype)
            part = VALUES[2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
            chunk[: part.shape[0], : part.shape[1]] = part
            store[f"depth/{i}.{j}"] = encode_chunk(chunk, meta)
    return str(target)


@pytest.mark.filterwarnings("ignore:.*dbm.dumb")
def test_each_kind_opens_in_a_process_that_imported_nothing_of_zarrstore_before(tmp_path):
    targets = [write(tmp_path / name) for name in NAMES]
    engines = {entry.name for entry in importlib.metadata.entry_points(group="xarray.backends")}
    if "zarrstore" not in engines:
        pytest.skip("needs an installed zarrstore: pip install -e .")
    # A process for each kind, forked from one that has imported xarray: that alone takes a second.
    script = """
import json, os, sys, xarray
for target in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        assert not [name for name in sys.modules if name.startswith("zarrstore")]
        with xarray.open_dataset(target, mask_and_scale=False) as data:
            depth = data["depth"]
            print(json.dumps([depth.values.tolist(), depth.dims, depth.attrs["units"]]), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, *targets], capture_output=True, text=True, check=True
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert found == [[VALUES.tolist(), ["y", "x"], "m"]] * len(NAMES), done.stderr


def test_a_url_a_mapping_and_a_store_by_the_engine_s_name(tmp_path):
    from zarrstore.bridges.xarray import ZarrstoreBackend

    with zarrstore.open_store(write(tmp_path / "x.lmdb"), "r") as store:
        items = dict(store)
    for target in (items, zarrstore.DictStore(root=items), f"dir://{tmp_path}/d"):
        if isinstance(target, str):
            zarrstore.copy_store(items, zarrstore.DirectoryStore(tmp_path / "d"))
        with xarray.open_dataset(target, engine=ZarrstoreBackend, mask_and_scale=False) as data:
            np.testing.assert_array_equal(data["depth"].values, VALUES)


def test_what_is_xarray_s_own_is_left_to_it(tmp_path):
    from zarrstore.bridges.xarray import ZarrstoreBackend

    backend = ZarrstoreBackend()
    (tmp_path / "data.zarr").mkdir()
    (tmp_path / "x.nc").write_bytes(b"CDF\x01")
    for name in ("data.zarr", "x.nc", "missing.nc"):
        assert not backend.guess_can_open(str(tmp_path / name))
    assert not backend.guess_can_open({})
    assert backend.guess_can_open(tmp_path / "missing.lmdb")


def test_closing_the_dataset_closes_the_store(tmp_path):
    from zarrstore.bridges.xarray import ZarrstoreBackend

    target = write(tmp_path / "x.sqlite")
    data = xarray.open_dataset(target, engine=ZarrstoreBackend)
    data.close()
    with zarrstore.open_store(target) as store:  # no lock is left
        store["new"] = b"1"
