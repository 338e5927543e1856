"""What docs/scale.rst computes, simulated: keys that nobody holds, and a service that says slow down."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from zarrstore import DictStore, RetryStore, copy_store
from zarrstore.base import Entry
from zarrstore.driver import Driver
from zarrstore.errors import ClusterError
from zarrstore.testing.instruments import Instrument


class Workers(Executor):
    """Threads that are taken for workers elsewhere."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads)
        self._max_workers = threads

    def submit(self, function: Any, /, *args: Any, **options: Any) -> Future[Any]:
        return self._pool.submit(function, *args, **options)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._pool.shutdown(wait, cancel_futures=cancel_futures)


class Synthetic(DictStore):
    """An array of any number of chunks, none of which is held."""

    capabilities = replace(DictStore.capabilities, process_safe=True, concurrent=True)

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count
        self["a/.zarray"] = b"{}"

    def __reduce__(self) -> tuple[Any, ...]:
        return Synthetic, (self.count,)

    def _details(self, path: str) -> Iterator[Entry]:
        yield Entry("a/.zarray", 2)
        yield from (Entry(f"a/{n}", 8, f"{n}") for n in range(self.count))

    def _keys(self, path: str) -> Iterator[str]:
        return (entry.key for entry in self._details(path))

    def _listdir(self, path: str) -> Iterable[str]:
        return ["a"] if not path else [".zarray", *map(str, range(self.count))] if path == "a" else []

    def _get(self, key: str) -> bytes:
        name = key.rpartition("/")[2]
        return b"%08d" % int(name) if name.isdigit() else super()._get(key)

    def _nbytes(self, key: str) -> int:
        return len(self._get(key))

    def _contains(self, key: str) -> bool:
        return key.rpartition("/")[2].isdigit() or super()._contains(key)


class Service(Instrument):
    """An object service: it waits, answers 503 to more requests at a time than it likes, and to some for no reason."""

    def __init__(self, count: int, delay: float, most: int, refused: float) -> None:
        super().__init__(DictStore())
        self.capabilities = replace(self.inner.capabilities, process_safe=True, concurrent=True)
        self.delay, self.most, self.refused = delay, most, refused
        self.written = bytearray(count)
        self.requests = self.refusals = self.busy = 0
        self.late_chunks = 0
        self._lock = threading.Lock()
        self._random = random.Random(7)

    def __reduce__(self) -> tuple[Any, ...]:
        return Service, (len(self.written), self.delay, self.most, self.refused)

    def _set(self, key: str, value: bytes) -> None:
        with self._lock:
            self.requests += 1
            self.busy += 1
            refuse = self.busy > self.most or self._random.random() < self.refused
            self.refusals += refuse
        try:
            if self.delay:
                time.sleep(self.delay)
            if refuse:
                raise OSError("503 Slow Down")
            name = key.rpartition("/")[2]
            if name.isdigit():
                assert value == b"%08d" % int(name)
                self.written[int(name)] += 1
                self.late_chunks += "a/.zarray" in self.inner
            else:
                self.inner[key] = value
        finally:
            with self._lock:
                self.busy -= 1

    _set_many = Driver._set_many


def simulate(count: int, threads: int, refused: float) -> Service:
    service = Service(count, delay=0.0, most=threads - 1, refused=refused)
    dest = RetryStore(service, attempts=12, backoff=0.0001, max_backoff=0.001)
    with Workers(threads) as workers:
        result = copy_store(Synthetic(count), dest, executor=workers, if_exists="skip")
    assert result[:2] == (count + 1, 0)
    return service


@pytest.mark.parametrize(
    "count", [pytest.param(1000), pytest.param(300_000, marks=[pytest.mark.nightly, pytest.mark.timeout(3600)])]
)
def test_every_key_arrives_through_a_service_that_says_slow_down(count: int) -> None:
    service = simulate(count, threads=8, refused=0.02)
    assert all(service.written)
    # One request a key, those that were refused, the document, and the probes before the first.
    assert count < service.requests - service.refusals <= count + 5
    assert service.refusals >= 0.01 * count
    assert service.late_chunks == 0
    assert set(service.inner) == {"a/.zarray"}


def test_a_service_that_refuses_everything_ends_the_copy_early() -> None:
    service = Service(100_000, delay=0.0, most=64, refused=0.0)
    source = Synthetic(100_000)

    def refuse(key: str, value: bytes) -> None:
        if "probe" in key:
            service.inner[key] = value
            return
        service.requests += 1
        raise OSError("503 Slow Down")

    service._set = refuse  # type: ignore[method-assign]
    with Workers(2) as workers, pytest.raises(ClusterError, match=r"values all failed, as .* 503 Slow Down"):
        copy_store(source, service, executor=workers, if_exists="skip")
    assert service.requests < 100_000
