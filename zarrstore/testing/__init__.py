"""The kit with which every store here is tested, for stores and mappings of your own.

`StoreConformance` is a pytest class to inherit from; `check_against_dict` plays random histories; `CountingStore`,
`SlowStore` and `FailingStore` wrap a store to count, delay and break it, `RoundsStore` to count as an object store
would; a `Recorder` keeps the order of changes and
flushes; `TREE` and `HOSTILE_KEYS` are the names that bite. Needs the extra ``testing`` (pytest, hypothesis); the
instruments and the trees need nothing.
"""

from typing import Any

from zarrstore.testing.instruments import CountingStore, FailingStore, Recorder, RecordingStore, SlowStore
from zarrstore.testing.rounds import RoundsStore
from zarrstore.testing.trees import HOSTILE_KEYS, SEGMENTS, TREE, tree

__all__ = [
    "HOSTILE_KEYS",
    "SEGMENTS",
    "TREE",
    "CountingStore",
    "FailingStore",
    "Recorder",
    "RecordingStore",
    "RoundsStore",
    "SlowStore",
    "StoreConformance",
    "check_against_dict",
    "tree",
]


def __getattr__(name: str) -> Any:
    # pytest and hypothesis are imported only by those who want the suite.
    if name == "StoreConformance":
        from zarrstore.testing.conformance import StoreConformance

        return StoreConformance
    if name == "check_against_dict":
        from zarrstore.testing.stateful import check_against_dict

        return check_against_dict
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
