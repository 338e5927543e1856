"""What every store must do, as a pytest class to inherit from.

A store or mapping of your own goes through it in a few lines of a test file, after ``pip install zarrstore[testing]``
(which brings a pytest plugin, so that a failed assertion shows what was compared)::

    from mypackage import MyStore

    from zarrstore.testing import StoreConformance


    class TestMyStore(StoreConformance):
        def make_store(self, tmp_path):
            return MyStore(tmp_path / "data")

        def reopen(self, store, tmp_path):  # only if it outlives the object
            store.close()
            return MyStore(tmp_path / "data")

What the store's `capabilities` deny is tested too: a store that says it is not erasable must refuse to delete.
"""

from __future__ import annotations

from zarrstore.testing.conformance.batches import BatchTests
from zarrstore.testing.conformance.hierarchy import HierarchyTests
from zarrstore.testing.conformance.mapping import MappingTests
from zarrstore.testing.conformance.names import NameTests
from zarrstore.testing.conformance.promises import PromiseTests

__all__ = ["StoreConformance"]


# pytest runs the tests of the last base first, and random histories are worth their time only where all else holds.
class StoreConformance(PromiseTests, BatchTests, HierarchyTests, NameTests, MappingTests):
    """Inherit, say how a store is made, and pytest does the rest.

    Override `make_store`; `reopen` if what was written outlives the object; `make_filled` if a store cannot be
    filled by writing to it.

    Attributes
    ----------
    largest : int, bytes
        The largest value that the suite writes, 4 MiB unless the store has a lower limit.
    segments : sequence of str
        Names from which the state machine makes keys.
    examples : int
        Histories that the state machine plays.
    pickles, checks_processes : bool
        Whether a pickled copy stands on the same place; whether to start other processes.
    forks : bool
        Whether a forked child may use the store.
    """
