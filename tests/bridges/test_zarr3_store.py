"""zarr 3's own tests of a store, over every one of ours."""

from __future__ import annotations

import pytest

pytest.importorskip("zarr.abc.store", reason="needs zarr 3: pip install zarrstore[zarr3]")

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from zarr.core.buffer import Buffer, cpu
from zarr.testing.stateful import ZarrHierarchyStateMachine, ZarrStoreStateMachine
from zarr.testing.store import StoreTests

from tests.bridges.zarr3_suite import HIERARCHICAL, MAKERS
from tests.support.cases import in_rows
from zarrstore import as_store
from zarrstore.bridges.zarr3 import MappingStore
from zarrstore.errors import LockedStoreError

# Each with a limit of its own: a machine of hypothesis that hangs must not take the run with it.
pytestmark = [pytest.mark.timeout(90), pytest.mark.filterwarnings("ignore:.*does not have a Zarr V3 specification")]


class MappingStoreTests(StoreTests[MappingStore, cpu.Buffer]):
    """What zarr asks for: how a store is made, and a way around it."""

    store_cls = MappingStore
    buffer_cls = cpu.Buffer
    make_mapping: Any

    async def set(self, store: MappingStore, key: str, value: Buffer) -> None:
        store.mapping[key] = value.to_bytes()

    async def get(self, store: MappingStore, key: str) -> Buffer:
        return cpu.Buffer.from_bytes(store.mapping[key])

    # Each case sets what it gets: one store will do.
    test_get = in_rows(StoreTests.test_get)
    test_getsize = in_rows(StoreTests.test_getsize)
    test_set = in_rows(StoreTests.test_set)

    @pytest.fixture
    def store_kwargs(self, tmp_path: Any) -> Any:
        mapping = self.make_mapping(tmp_path)
        yield {"mapping": mapping}
        as_store(mapping).close()

    def test_store_repr(self, store: MappingStore) -> None:
        assert repr(store) == f"MappingStore({store.mapping!r})"
        assert str(store) == f"mapping://{type(store.mapping).__name__}"

    def test_store_supports_writes(self, store: MappingStore) -> None:
        assert store.supports_writes

    def test_store_supports_partial_writes(self, store: MappingStore) -> None:
        assert not store.supports_partial_writes

    def test_store_supports_listing(self, store: MappingStore) -> None:
        assert store.supports_listing


class ZipStoreTests(MappingStoreTests):
    """An archive has one writer."""

    async def test_serializable_store(self, store: MappingStore) -> None:
        # Overridden: zarr's test demands a second writer, which would lose what the first one writes. A copy reads what
        # was set before the pickling, and writes only when the writer is gone.
        import pickle

        await store.set("foo", cpu.Buffer.from_bytes(b"bar"))
        copy = pickle.loads(pickle.dumps(store))
        assert copy == store
        assert (await copy.get("foo")).to_bytes() == b"bar"
        with pytest.raises(LockedStoreError):
            await copy.set("foo", cpu.Buffer.from_bytes(b"other"))
        store.mapping.close()
        assert (await copy.get("foo")).to_bytes() == b"bar"
        copy.mapping.close()


for _name, _make in MAKERS.items():
    _base = ZipStoreTests if _name == "ZipStore" else MappingStoreTests
    _title = "Test_" + _name.replace(" ", "_")
    globals()[_title] = type(_title, (_base,), {"make_mapping": staticmethod(_make), "__module__": __name__})
del _base, MappingStoreTests, ZipStoreTests


def run(machine: Any, examples: int) -> None:
    limits = settings(
        max_examples=examples,
        stateful_step_count=20,
        deadline=None,
        database=None,  # an example of one release of zarr is none of another's
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=limits)


def hierarchies(make: Any, folder: Any, examples: int) -> None:
    stores = []

    def machine() -> Any:
        stores.append(as_store(make(folder.mktemp("machine"))))
        return ZarrHierarchyStateMachine(MappingStore(stores[-1]))

    run(machine, examples)
    for store in stores:
        store.close()


#: Histories: a few in each run, more with the slow tests. One costs a fifth of a second in zarr.
EXAMPLES = [3, pytest.param(20, marks=pytest.mark.slow)]


@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize("name", MAKERS)
def test_random_hierarchies_end_as_they_do_in_the_memory_store_of_zarr(
    name: str, examples: int, tmp_path_factory: Any
) -> None:
    hierarchies(MAKERS[name], tmp_path_factory, examples)


@pytest.mark.nightly
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", MAKERS)
def test_many_random_hierarchies_end_as_they_do_in_the_memory_store_of_zarr(name: str, tmp_path_factory: Any) -> None:
    hierarchies(MAKERS[name], tmp_path_factory, 60)


@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize("name", sorted(MAKERS.keys() - HIERARCHICAL))
def test_random_keys_end_as_they_do_in_a_dict(name: str, examples: int, tmp_path_factory: Any) -> None:
    stores = []

    def machine() -> Any:
        stores.append(as_store(MAKERS[name](tmp_path_factory.mktemp("machine"))))
        return ZarrStoreStateMachine(MappingStore(stores[-1]))

    run(machine, examples)
    for store in stores:
        store.close()
