"""Any system call may fail once, or come back short: the store raises or tells the truth, and loses nothing."""

from __future__ import annotations

import pytest

from tests.faults import calls
from tests.support import peers


def run(stores: str, most: int) -> dict:
    if reason := calls.lacking():
        peers.refuse("cc", reason)
    found = calls.failing(stores, most)
    assert found["bad"] == []
    assert found["hits"] * 10 > found["rounds"] * 9, "the calls that were to fail did not come"
    return found


@pytest.mark.timeout(300)
def test_a_sample_of_failing_calls_loses_nothing():
    found = run(",".join(calls.STORES), 7)
    assert found["calls"].keys() == calls.STORES.keys()
    assert found["raised"] > len(calls.STORES)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("store", calls.STORES)
def test_every_call_may_fail_once(store):
    assert run(store, 0)["raised"] > 10


def test_a_store_that_swallows_errors_is_seen(monkeypatch):
    """The harness itself: what is wrong after a step is found."""
    assert calls._halves({"a": b"1"}, {"a": b"0"}, {"b": b"2"}) == ["'a' holds b'1'"]
    assert calls._halves({}, {"a": b"0"}, {"a": None, "b": b"0"}) == ["the value of 'a' is lost"]
