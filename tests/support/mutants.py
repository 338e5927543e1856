"""Mutants of what stores read back: bytes, names and JSON, each wrong in one place or a few."""

from __future__ import annotations

import json
import random
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from zarrstore.errors import ZarrStoreError

#: Names that lead elsewhere, or are no keys.
NAMES = (
    *(
        "..",
        "../x",
        "../../etc/passwd",
        "/etc/passwd",
        "/",
        "",
        ".",
        "a/../../x",
        "a//b",
        "a/",
        "/a",
        "..\\x",
        "C:/x",
        "c:x",
    ),
    *(
        "a\0b",
        "x" * 300,
        "x/" * 60 + "y",
        ".zarrstore-overlay/k..",
        "a/./b",
        "~root",
        "-rf",
        "a\nb",
        "\udcff",
        "é" * 200,
    ),
)
#: Values that no document should have there.
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63), 10**400, 0.5, 1e308, float("nan"), float("inf")),
    *(
        "",
        "x",
        "..",
        "../x",
        "/etc/passwd",
        "NaN",
        "0x7f",
        "1e5",
        "|V0",
        "<M8[ns]",
        "|O",
        ">f8",
        "<U99999999",
        "\ud800",
    ),
    *([], {}, [[]], [None], [0], [-1], [2**40], [10**30] * 2, ["a"], [{}], {"a": 1}, {"id": "pickle"}, {"id": "zlib"}),
    *({"id": "no such"}, {"name": "sharding_indexed"}, [{"name": "bytes"}], {"name": "gzip", "configuration": None}),
    *({"node_type": "array"}, {"zarr_format": 3}, [[[[[[[[[[]]]]]]]]]], "x" * 5000, "9" * 5000, list(range(200))),
)


def flipped(data: bytes, rng: random.Random) -> bytes:
    """Return bytes with a few places changed, cut, doubled or put elsewhere."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(out) + 1) if out else 0
        way = rng.randrange(9)
        if way <= 2 and out:
            out[at % len(out)] ^= 1 << rng.randrange(8)
        elif way == 3 and out:
            out[at % len(out)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, 0x2F, 0x2E))
        elif way == 4:
            out[at : at + rng.choice((1, 2, 4, 8))] = rng.choice(
                (b"\0" * 4, b"\xff" * 4, b"\xff" * 8, b"\x7f\xff\xff\xff")
            )
        elif way == 5:
            del out[at : at + rng.randrange(1, 40)]
        elif way == 6:
            out[at:at] = rng.randbytes(rng.randrange(1, 20))
        elif way == 7:
            start = rng.randrange(len(out) + 1)
            out[at:at] = out[start : start + rng.randrange(1, 60)]
        else:
            del out[at:]
    return bytes(out)


def renamed(data: bytes, names: list[str], rng: random.Random) -> bytes:
    """Return bytes in which a name is another of the same length, as a hostile writer would put it there."""
    name = rng.choice(names).encode()
    evil = rng.choice(NAMES).encode("utf-8", "surrogateescape")
    evil = (evil * (len(name) // max(1, len(evil)) + 1))[: len(name)]
    return data.replace(name, evil) if rng.random() < 0.7 else data.replace(name, evil, 1)


def bent(document: Any, rng: random.Random) -> Any:
    """Return a copy of a JSON document in which a member is another value, gone, or under another name."""
    out = json.loads(json.dumps(document))
    places = list(_places(out))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if not places:
            return rng.choice(VALUES)
        holder, at = rng.choice(places)
        try:
            way = rng.randrange(6)
            if way <= 3:
                holder[at] = rng.choice(VALUES)
            elif way == 4:
                del holder[at]
            elif isinstance(holder, dict):
                holder[rng.choice(NAMES)] = holder.pop(at)
            else:
                holder[at : at + 1] = [holder[at]] * rng.choice((2, 40))
        except (KeyError, IndexError):  # an earlier change took it away
            continue
    return out


def as_json(document: Any, rng: random.Random) -> bytes:
    """Return a bent document as bytes, now and then with bytes changed too."""
    data = json.dumps(bent(document, rng)).encode()
    return flipped(data, rng) if rng.random() < 0.1 else data


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    members = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for at, member in list(members):
        yield node, at
        yield from _places(member)


class Hang(BaseException):
    """A call took too long."""


@contextmanager
def patience(seconds: float = 20) -> Iterator[None]:
    """Raise Hang in what takes longer."""

    def stop(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    left = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *left)  # the timeout of pytest


def little_memory(nbytes: int = 3 << 30) -> None:
    """Let this process take no more than so much beyond what it has: what asks for more raises MemoryError."""
    with open("/proc/self/statm") as file:
        taken = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + nbytes, resource.RLIM_INFINITY))


def ours(act: Callable[[], Any]) -> Any:
    """Return what a call returns, the error if it is one of ours or says absence; let any other out."""
    try:
        return act()
    except ZarrStoreError as exc:
        return exc
    except KeyError as exc:
        if type(exc) is not KeyError:
            raise
        return exc
