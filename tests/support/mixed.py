"""Mixed operations by many workers on one store, each of which knows what it may find."""

from __future__ import annotations

import random
from collections.abc import MutableMapping
from typing import Any

from tests.support import crash


def work(
    store: MutableMapping[str, Any], worker: int, workers: int, count: int, seed: int, problems: list[str]
) -> None:
    """Write own keys, read all; versions only grow, and what this worker wrote is what it reads."""
    chance = random.Random(seed * 100 + worker)
    seen: dict[int, int] = {}
    try:
        for version in range(1, count + 1):
            mine = worker + workers * chance.randrange(4)
            key = f"w/{mine % 3}/{mine}"
            dice = chance.random()
            if dice < 0.4:
                store[key] = crash.value(mine, version, chance.choice((10, 3000, 20_000)))
                seen[mine] = version
            elif dice < 0.5:
                store.pop(key, None)
                seen[mine] = -version
            elif dice < 0.55:
                store.setitems({key: crash.value(mine, version, 100), f"other/{worker}": b"x"})
                seen[mine] = version
            elif dice < 0.6:
                names = list(store)
                assert len(names) == len(set(names))
                assert set(store.listdir()) <= {"w", "other"}
                store.getsize("w/1")
            else:
                theirs = chance.randrange(4 * workers)
                found = store.get(f"w/{theirs % 3}/{theirs}")
                if found is not None:
                    now = crash.version_of(theirs, found)
                    if theirs % workers == worker:
                        assert seen[theirs] == now, f"stale: wrote {seen[theirs]}, read {now}"
                    else:
                        assert now >= seen.get(theirs, 0), f"back in time: {now} after {seen[theirs]}"
                        seen[theirs] = now
                elif theirs % workers == worker:
                    assert seen.get(theirs, -1) < 0, f"lost: version {seen[theirs]} of {theirs}"
    except BaseException as exc:
        problems.append(f"{type(exc).__name__}: {exc}")
