"""dask and xarray over our stores, in threads and in other processes."""

from __future__ import annotations

import pytest

pytest.importorskip("zarr.abc.store", reason="needs zarr 3: pip install zarrstore[zarr3]")
pytest.importorskip("dask", reason="needs dask: pip install zarrstore[dask]")
pytest.importorskip("xarray", reason="needs xarray: pip install xarray")

import dask
import numpy as np
import xarray
import zarr

from zarrstore.bridges.zarr3 import MappingStore, to_zarr3
from zarrstore.ops import setitems
from zarrstore.stores.directory import DirectoryStore
from zarrstore.stores.lmdb import LMDBStore
from zarrstore.stores.zip import ZipStore

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore:.*Consolidated metadata is currently not part"),
]

DATA = np.arange(24 * 10 * 12, dtype="f4").reshape(24, 10, 12)


@pytest.fixture(scope="module", autouse=True)
def _dask_array():
    """Load it here: at the head of the file, each worker would spend half a second on it."""
    pytest.importorskip("dask.array", reason="needs dask: pip install zarrstore[dask]")


def dataset():
    values = dask.array.from_array(DATA, chunks=(6, 5, 12))
    coordinates = {"time": np.arange(24), "lat": np.linspace(-40, 40, 10), "lon": np.linspace(0, 110, 12)}
    return xarray.Dataset({"t": (("time", "lat", "lon"), values)}, coordinates, {"title": "made here"})


@pytest.fixture(scope="module")
def cluster():
    """Two worker processes."""
    pytest.importorskip("distributed", reason="needs distributed: pip install zarrstore[dask]")
    with dask.config.set({"distributed.worker.daemon": True, "distributed.comm.timeouts.connect": "60s"}):
        from distributed import Client, LocalCluster

        with (
            LocalCluster(2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
            Client(cluster) as client,
        ):
            yield client


# To start a cluster that imports xarray takes 7 s of processor time; tests/tools/test_dask.py has one in every run.
@pytest.fixture(params=["threads", pytest.param("distributed", marks=pytest.mark.slow)])
def scheduler(request):
    """Compute in threads of this process, or in the worker processes."""
    if request.param == "distributed":
        client = request.getfixturevalue("cluster")
        with dask.config.set(scheduler=client):
            yield "distributed"
    else:
        with dask.config.set(scheduler="threads"):
            yield "threads"


MAKERS = {
    "DirectoryStore": lambda path: DirectoryStore(path / "d"),
    "LMDBStore": lambda path: LMDBStore(path / "d.lmdb"),
}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_dataset_is_written_and_read_back(name, zarr_format, scheduler, tmp_path):
    with MAKERS[name](tmp_path) as store:
        dataset().to_zarr(to_zarr3(store), zarr_format=zarr_format)
        again = xarray.open_zarr(to_zarr3(store), chunks={})
        xarray.testing.assert_identical(again.compute(), dataset().compute())


@pytest.mark.parametrize("name", MAKERS)
def test_dask_reads_and_writes_an_array(name, scheduler, tmp_path):
    with MAKERS[name](tmp_path) as store:
        held = zarr.create_array(MappingStore(store), shape=DATA.shape, chunks=(6, 5, 12), dtype="f4")
        dask.array.store(dask.array.from_array(DATA, chunks=(6, 5, 12)), held, lock=False)
        values = dask.array.from_zarr(zarr.open_array(to_zarr3(store), mode="r"))
        assert float(values.sum().compute()) == float(DATA.sum())
        assert (values[3:9, ::2].compute() == DATA[3:9, ::2]).all()


def test_an_archive_is_read(scheduler, tmp_path):
    held = {}
    with dask.config.set(scheduler="threads"):  # other processes would each fill a dict of their own
        dataset().to_zarr(MappingStore(held))
    with ZipStore(tmp_path / "d.zip", mode="w") as archive:
        setitems(archive, held)
    with ZipStore(tmp_path / "d.zip", mode="r") as archive:
        again = xarray.open_zarr(to_zarr3(archive), chunks={})
        xarray.testing.assert_identical(again.compute(), dataset().compute())
        values = dask.array.from_zarr(zarr.open_array(to_zarr3(archive), path="t", mode="r"))
        assert (values.compute() == DATA).all()


def test_a_part_of_a_dataset_is_written_into_its_region(scheduler, tmp_path):
    with DirectoryStore(tmp_path / "d") as store:
        dataset().to_zarr(to_zarr3(store))
        part = dataset().isel(time=slice(6, 12))[["t"]] * 0 + 5
        part.drop_vars(["time", "lat", "lon"]).to_zarr(to_zarr3(store), region={"time": slice(6, 12)})
        expected = DATA.copy()
        expected[6:12] = 5
        assert (xarray.open_zarr(to_zarr3(store)).t.values == expected).all()
