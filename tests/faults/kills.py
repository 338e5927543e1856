"""A process killed inside a verb that touches many keys: each of them is what it was, or what it was to be.

Each round copies a filled store, lets a process do one verb over it, kills that process at a random moment within the
verb's usual time, opens the store again and compares. Run one mode by hand::

    $ python -m tests.faults.kills ZipStore rename 100
"""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.faults.modes import MODES
from tests.support import crash
from zarrstore.errors import StoreNotFoundError
from zarrstore.keys import RESERVED
from zarrstore.registry import open_store
from zarrstore.tools.pack import pack

Items = dict[str, bytes]

BEFORE: Items = {f"{folder}/{n}": crash.value(n, 1, 37 * n % 3000) for folder in "ab" for n in range(80)}
NEW: Items = {f"{folder}/{n}": crash.value(n, 2, 91 * n % 5000) for folder in "ac" for n in range(40)}


class Verb(NamedTuple):
    """One verb.

    Parameters
    ----------
    act : callable
        ``act(store, folder)`` does it.
    after : dict
        What the store holds when it was done.
    moved : dict
        Keys whose values are moved, and where: each value is at one of both at least.
    again : bool
        A second call completes what a kill left half done.
    """

    act: Callable[[Any, Path], object]
    after: Items
    moved: dict[str, str] = {}
    again: bool = True


def _without(lead: str) -> Items:
    return {key: value for key, value in BEFORE.items() if not key.startswith(lead)}


_MOVED = {f"a/{n}": f"d/e/{n}" for n in range(80)}

VERBS: dict[str, Verb] = {
    "rmdir": Verb(lambda store, folder: store.rmdir("a"), _without("a/")),
    "clear": Verb(lambda store, folder: store.clear(), {}),
    "rename": Verb(
        lambda store, folder: store.rename("a", "d/e"),
        _without("a/") | {dest: BEFORE[source] for source, dest in _MOVED.items()},
        _MOVED,
        again=False,
    ),
    "setitems": Verb(lambda store, folder: store.setitems(NEW), BEFORE | NEW),
    "delitems": Verb(lambda store, folder: store.delitems(f"a/{n}" for n in range(80)), _without("a/")),
    "flush": Verb(lambda store, folder: (store.setitems(NEW), store.flush()), BEFORE | NEW),
    "pack": Verb(lambda store, folder: pack(store, folder / "packed.zip", overwrite=True), BEFORE),
    "compact": Verb(lambda store, folder: (getattr(store, "repack", None) or store.compact)(), BEFORE),
}


def verbs_of(mode: str) -> list[str]:
    """Return the verbs that a mode has: only files with free space are compacted."""
    compacts = mode.startswith(("ZipStore", "LMDBStore", "SQLiteStore"))
    return [verb for verb in VERBS if verb != "compact" or compacts]


def kills(mode: str, verb: str, rounds: int, seed: int = 0) -> dict[str, Any]:
    """Kill a process inside a verb `rounds` times; return what was wrong (`bad`), and how many kills met it at work."""
    command = [sys.executable, "-m", "tests.faults.kills", mode, verb, str(rounds), str(seed)]
    patience = 60 + 10 * rounds * len(verb.split(","))  # only a hang takes so long, on a busy machine too
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=patience, cwd=Path(__file__).parent.parent.parent
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def _kills(mode: str, names: str, rounds: int, seed: int) -> dict[str, Any]:
    found: dict[str, Any] = {"bad": [], "rounds": 0, "inside": 0}
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(prefix="zarrstore-kills-", dir=memory) as name:
        filled = Path(name, "filled")
        filled.mkdir()
        prepared = crash._in_child(lambda: _fill(mode, filled))
        assert "panic" not in prepared, prepared
        for verb in names.split(","):
            chance = random.Random(f"{mode} {verb} {seed}")
            usual = min(_time(mode, verb, _copy(filled, name)) for _ in range(3))
            for number in range(rounds):
                folder = _copy(filled, name)
                found["inside"] += _kill(mode, verb, folder, usual * chance.random())
                looked = crash._in_child(lambda verb=verb, folder=folder: _inspect(mode, verb, folder))
                found["bad"] += [f"{mode}, {verb}, seed {seed}, round {number}: {line}" for line in looked["bad"]]
                found["rounds"] += 1
    return found


def _copy(filled: Path, name: str) -> Path:
    folder = Path(name, "work")
    if folder.exists():
        shutil.rmtree(folder)
    shutil.copytree(filled, folder, symlinks=True)
    return folder


def _fill(mode: str, folder: Path) -> dict[str, Any]:
    with MODES[mode].open(folder) as store:
        store.setitems(BEFORE | {"a/gone": bytes(50_000)})
        del store["a/gone"]  # for `compact` to give back
    return {}


def _start(mode: str, verb: str, folder: Path) -> tuple[int, int]:
    """Return a process that is about to do a verb, and a pipe on which it reports the begin and the end of it."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours)
        status = 1
        try:
            store = MODES[mode].open(folder)
            os.write(theirs, b"b")
            VERBS[verb].act(store, folder)
            os.write(theirs, b"e")
            status = 0
        finally:
            os._exit(status)
    os.close(theirs)
    assert os.read(ours, 1) == b"b", f"{mode} does not open"
    return child, ours


def _time(mode: str, verb: str, folder: Path) -> float:
    """Return how long a verb takes, in seconds."""
    child, pipe = _start(mode, verb, folder)
    start = time.monotonic()
    assert os.read(pipe, 1) == b"e", f"{mode} does not {verb}"
    usual = time.monotonic() - start
    os.close(pipe)
    os.waitpid(child, 0)
    return usual


def _kill(mode: str, verb: str, folder: Path, wait: float) -> bool:
    """Begin a verb and kill its process; tell whether it was at work."""
    child, pipe = _start(mode, verb, folder)
    select.select([pipe], [], [], wait)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    ended = os.read(pipe, 1)
    os.close(pipe)
    return not ended


def _inspect(mode: str, verb: str, folder: Path) -> dict[str, Any]:
    act, after, moved, again = VERBS[verb]
    with MODES[mode].open(folder) as store:
        found = dict(store.items())
        bad = _differences(found, after)
        bad += [
            f"{source!r} is lost on the way to {dest!r}"
            for source, dest in moved.items()
            if source not in found and dest not in found
        ]
        if verb == "pack":
            bad += _packed(folder)
        if again:
            act(store, folder)
            bad += [f"after a second {verb}: {line}" for line in _differences(dict(store.items()), after, after)]
    left = [name for name in os.listdir(folder) if name.startswith(RESERVED)]
    if verb == "pack" and left:
        bad.append(f"a second pack leaves {left}")
    with MODES[mode].open(folder) as store:
        if again:
            bad += [f"opened again: {line}" for line in _differences(dict(store.items()), after, after)]
        store["written/later"] = b"1"
    return {"bad": bad}


def _differences(found: Items, after: Items, before: Items = BEFORE) -> list[str]:
    bad = []
    for key in sorted({*found, *before, *after}):
        if found.get(key) not in (before.get(key), after.get(key)):
            bad.append(f"{key!r} is neither what it was nor what it was to be")
        if key not in found and key in before and key in after:
            bad.append(f"{key!r} is lost")
    return bad


def _packed(folder: Path) -> list[str]:
    """Return what is wrong with the archive, which is there as a whole or not at all."""
    try:
        with open_store(folder / "packed.zip", mode="r") as archive:
            return [f"archive: {line}" for line in _differences(dict(archive), BEFORE)]
    except StoreNotFoundError:
        return []


if __name__ == "__main__":
    mode_name, verb_names, rounds_text, *seed_text = sys.argv[1:]
    print(json.dumps(_kills(mode_name, verb_names, int(rounds_text), int(seed_text[0]) if seed_text else 0)))
