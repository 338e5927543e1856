"""Is what many threads saw of a store what one after the other could have seen? A recorder, and the check.

Every value written is unique, so each read names the write it saw. Then a register is linearizable if and only if
(Gibbons and Korach, 1997), with the *zone* of a value reaching from the first end to the last start of its operations:

* no read ends before its write begins,
* no two forward zones (first end before last start: the register must hold the value all that time) overlap,
* no backward zone (an instant within it suffices) lies within a forward zone.

Deletes are writes of a value of their own. A read that found nothing does not name its delete; it is a violation if
no delete could have been the one. That makes the check O(n log n), and never a false alarm.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

#: What a read saw, or a delete wrote.
ABSENT = b""


class Op(NamedTuple):
    """One operation on one key: what it wrote or saw, and when it began and ended."""

    key: str
    writes: bool
    value: bytes
    start: int
    end: int


class Zone(NamedTuple):
    """From the first end to the last start of a value's operations."""

    first_end: int
    last_start: int
    value: bytes

    @property
    def forward(self) -> bool:
        return self.first_end < self.last_start


def violations(history: Iterable[Op], initial: dict[str, bytes] | None = None) -> list[str]:
    """Return one sentence for each way in which a history is not linearizable, key by key."""
    by_key: dict[str, list[Op]] = defaultdict(list)
    for op in history:
        by_key[op.key].append(op)
    found: list[str] = []
    for key, ops in by_key.items():
        first = (initial or {}).get(key, ABSENT)
        found += (f"{key}: {text}" for text in _of_register([Op(key, True, first, -2, -1), *ops]))
    return found


def _of_register(ops: Sequence[Op]) -> Iterator[str]:
    writes: dict[bytes, Op] = {}
    deletes: list[Op] = []
    absences: list[Op] = []
    reads: dict[bytes, list[Op]] = defaultdict(list)
    for op in ops:
        if op.value == ABSENT:
            (deletes if op.writes else absences).append(op)
        elif op.writes:
            assert op.value not in writes, f"{op.value!r} is written twice: the check needs unique values"
            writes[op.value] = op
        else:
            reads[op.value].append(op)

    zones = [Zone(delete.end, delete.start, ABSENT) for delete in deletes]
    for value, seen in reads.items():
        write = writes.get(value)
        if write is None:
            yield f"{value!r} was read and never written"
            continue
        if any(read.end < write.start for read in seen):
            yield f"{value!r} was read before it was written"
    for value, write in writes.items():
        all_ops = [write, *reads[value]]
        zones.append(Zone(min(op.end for op in all_ops), max(op.start for op in all_ops), value))

    forward = sorted(zone for zone in zones if zone.forward)
    backward = sorted((zone.last_start, zone.first_end, zone.value) for zone in zones if not zone.forward)
    latest: Zone | None = None
    for zone in forward:
        if latest is not None and zone.first_end < latest.last_start:
            yield f"{latest.value!r} was read after {zone.value!r} had been written over it, or the other way round"
        if latest is None or zone.last_start > latest.last_start:
            latest = zone
    ends = [zone.first_end for zone in forward]

    def within_forward(start: int, end: int) -> Zone | None:
        at = bisect_left(ends, start) - 1
        if at >= 0 and forward[at].first_end < start and end < forward[at].last_start:
            return forward[at]
        return None

    for start, end, value in backward:
        around = within_forward(start, end)
        if around is not None:
            what = "a delete" if value == ABSENT else f"the write of {value!r}"
            yield f"{around.value!r} was read after {what} had come and gone"

    deletes.sort(key=lambda op: op.end)
    delete_ends = [op.end for op in deletes]
    starts = [start for start, _, _ in backward]
    by_start = sorted(deletes, key=lambda op: op.start)
    delete_starts = [op.start for op in by_start]
    for read in absences:
        at = bisect_left(delete_ends, read.start)
        last_done = deletes[at - 1] if at else None
        if last_done is not None and _silent(last_done.end, read.start, forward, ends, backward, starts):
            continue
        # Those that overlap the read: they began before its end, and end after its start.
        upto = bisect_right(delete_starts, read.end)
        candidates = (op for op in reversed(by_start[max(0, upto - 64) : upto]) if op.end >= read.start)
        if any(within_forward(max(op.start, read.start), min(op.end, read.end)) is None for op in candidates):
            continue
        yield f"nothing was read at {read.start}-{read.end}, where no delete can account for it"


def _silent(
    start: int,
    end: int,
    forward: list[Zone],
    ends: list[int],
    backward: list[tuple[int, int, bytes]],
    starts: list[int],
) -> bool:
    """Tell whether the register can have been absent from `start` to `end`."""
    at = bisect_left(ends, end)
    if at and forward[at - 1].last_start > start:
        return False
    for place in range(bisect_right(starts, start), bisect_left(starts, end)):
        _, last, value = backward[place]
        if value != ABSENT and last < end:
            return False
    return True


@contextmanager
def restless(interval: float = 1e-5) -> Iterator[None]:
    """Let threads change places as often as they can; coverage does not look into those that start meanwhile.

    In Python 3.11 a thread dies at birth if it installs a trace function while another one does.
    """
    before, tracer = sys.getswitchinterval(), threading.gettrace()
    threading.settrace(None)  # type: ignore[arg-type]
    sys.setswitchinterval(interval)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
        threading.settrace(tracer)  # type: ignore[arg-type]


def play(
    store: MutableMapping[str, bytes],
    *,
    ops: int,
    threads: int = 8,
    keys: Sequence[str],
    sizes: tuple[int, int] = (16, 64),
    seed: int = 0,
    rmdir: bool = True,
    extra: Callable[[Any, random.Random], None] | None = None,
) -> list[Op]:
    """Let threads read, write and delete at random, and return what each did and saw.

    `extra` is called now and then with the store: an `invalidate`, say, which no reader may notice. Without `rmdir`
    directories are left: a store of arrays takes no chunk whose array is gone.
    """
    clock = time.perf_counter_ns
    histories: list[list[Op]] = [[] for _ in range(threads)]
    failures: list[BaseException] = []
    barrier = threading.Barrier(threads)

    def work(number: int) -> None:
        rng = random.Random(f"{seed}-{number}")
        note = histories[number].append
        low, high = sizes

        def fresh() -> bytes:
            nonlocal count
            count += 1
            return value_of(b"%d-%d" % (number, count), rng.randint(low, high))

        count = 0
        barrier.wait()
        for _ in range(ops // threads):
            key = rng.choice(keys)
            dice = rng.random()
            if dice < 0.55:
                start = clock()
                value = store.get(key, ABSENT)
                note(Op(key, False, identity(value), start, clock()))
            elif dice < 0.60:
                start = clock()
                try:
                    value = _part(store, key, rng)
                except KeyError:
                    value = ABSENT
                note(Op(key, False, value, start, clock()))
            elif dice < 0.65:
                start = clock()
                if key not in store:
                    note(Op(key, False, ABSENT, start, clock()))
            elif dice < 0.70:
                some = rng.sample(keys, min(5, len(keys)))
                start = clock()
                batch = store.getitems(some)  # type: ignore[attr-defined]
                for key in some:
                    value = batch.get(key, ABSENT)
                    note(Op(key, False, identity(value), start, clock()))
            elif dice < 0.85:
                value = fresh()
                start = clock()
                store[key] = value
                note(Op(key, True, identity(value), start, clock()))
            elif dice < 0.89:
                items = {key: fresh() for key in rng.sample(keys, min(3, len(keys)))}
                start = clock()
                store.setitems(items)  # type: ignore[attr-defined]
                end = clock()
                for key, value in items.items():
                    note(Op(key, True, identity(value), start, end))
            elif dice < 0.97:
                start = clock()
                try:
                    del store[key]
                except KeyError:
                    note(Op(key, False, ABSENT, start, clock()))
                else:
                    note(Op(key, True, ABSENT, start, clock()))
            elif dice < 0.98 and rmdir:
                path = key.rpartition("/")[0]
                start = clock()
                store.rmdir(path)  # type: ignore[attr-defined]
                end = clock()
                for other in keys:
                    if other.startswith(path + "/"):
                        note(Op(other, True, ABSENT, start, end))
            elif dice >= 0.98 and extra is not None:
                extra(store, rng)

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as exc:
            failures.append(exc)
            barrier.abort()

    pool = [threading.Thread(target=guarded, args=(number,)) for number in range(threads)]
    for thread in pool:
        thread.start()
    for thread in pool:
        thread.join()
    if failures:
        raise failures[0]
    return [op for history in histories for op in history]


def value_of(name: bytes, size: int) -> bytes:
    """Return a value of a name: of what length it is, it says itself."""
    return b"%b.%06d." % (name, size) + bytes(ord("a") + at % 26 for at in range(size))


def identity(value: bytes) -> bytes:
    """Return the name of a value, or one that nobody wrote if it is not whole."""
    if value == ABSENT:
        return ABSENT
    name, _, rest = value.partition(b".")
    whole = rest[:6].isdigit() and value == value_of(name, int(rest[:6]))
    return name if whole else b"torn: " + value


#: As long as a whole value at most; longer than any, for a part that goes past the end.
_LONG = 1 << 16


def _part(store: Any, key: str, rng: random.Random) -> bytes:
    """Read a value by one of the calls for parts, and return its name."""
    way = rng.randrange(3)
    if way == 0:
        return identity(store.getrange(key, 0, _LONG))
    if way == 1:
        return identity(store.getsuffix(key, _LONG))
    part = store.getrange(key, 0, 24)
    name, _, rest = part.partition(b".")
    return name if len(part) == 24 and rest[6:7] == b"." else b"torn: " + part
