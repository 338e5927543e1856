"""What a store holds after its process was killed, or after a system call failed: for any store, from outside.

::

    crash.kills("tests.support.openers:lmdb", tmp_path, rounds=40)
    crash.failing_calls("tests.support.openers:lmdb", tmp_path)

A store is named ``module:function``; ``function(folder)`` opens it, the same place every time. All runs in processes
of their own, forked from one that has imported everything: that is twenty times faster than starting Python each time.
"""

from __future__ import annotations

import importlib
import json
import mmap
import os
import random
import re
import select
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

HEADER = struct.Struct("<IIII")  # key, version, length, CRC of the rest
MESSAGE = struct.Struct("<cII")  # what, key, version
KEYS = 24


def value(key: int, version: int, size: int) -> bytes:
    """Return a value that says which it is, and whether it is whole."""
    body = random.Random(key * 1_000_003 + version).randbytes(size)
    return HEADER.pack(key, version, size, zlib.crc32(body, version)) + body


def version_of(key: int, found: bytes) -> int:
    """Return the version of a value; AssertionError if it is torn or another key's."""
    owner, version, size, crc = HEADER.unpack_from(found)
    assert owner == key, f"key {key} holds a value of key {owner}"
    assert size == len(found) - HEADER.size, f"key {key} version {version}: {len(found)} bytes of {size}"
    assert zlib.crc32(found[HEADER.size :], version) == crc, f"key {key} version {version} is torn"
    return version


def _name(key: int) -> str:
    return f"a/{key % 3}/{key}"


def _opener(where: str) -> Callable[[Path], Any]:
    module, _, name = where.partition(":")
    found = importlib.import_module(module)
    return found.MODES[name].open if hasattr(found, "MODES") else getattr(found, name)  # type: ignore[no-any-return]


# Kills --------------------------------------------------------------------------------------------------------------


def kills(
    where: str, folder: Path, rounds: int, *, promise: str = "acknowledged", flush_every: int = 7, seed: int = 0
) -> dict[str, Any]:
    """Kill a writer `rounds` times; return what was found to be wrong, and how much was written.

    Parameters
    ----------
    promise : {'acknowledged', 'flushed'}
        What must be there after a kill: all that was set, or only what was set before a flush.
    """
    command = ["kills", where, str(folder), str(rounds), promise, str(flush_every), str(seed)]
    return _run(command, timeout=60 + 10 * rounds)


def _kills(where: str, folder: str, rounds: str, promise: str, flush_every: str, seed: str) -> dict[str, Any]:
    place, chance = Path(folder), random.Random(int(seed))
    open_store = _opener(where)
    # Per key: versions that may be found, oldest first; a deletion is a version of its own, found as absence.
    history: dict[int, list[tuple[int, bool]]] = {key: [(0, False)] for key in range(KEYS)}
    bad: list[str] = []
    acknowledged = 0
    for number in range(int(rounds)):
        ours, theirs = os.pipe()
        start = max(past[-1][0] for past in history.values()) + 1
        child = os.fork()
        if child == 0:
            os.close(ours)
            _write_for_ever(open_store(place), theirs, start, int(flush_every), number + int(seed))
        os.close(theirs)
        messages = _read_some(ours, chance)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        acknowledged += _note(history, messages + os.fdopen(ours, "rb").read(), promise)
        found = _in_child(lambda: _inspect(open_store(place)))
        bad += [f"round {number}: {line}" for line in found["bad"]]
        for key, past in history.items():
            version = found["versions"].get(str(key))
            allowed = [entry for entry in past if entry[1] == (version is not None)]
            if version is None and not allowed:
                bad.append(f"round {number}: key {key} is lost, had {past[-3:]}")
            if version is not None and (version, True) not in allowed:
                bad.append(f"round {number}: key {key} has version {version} of {past[-3:]}")
            history[key] = [(past[-1][0], version is not None) if version is None else (version, True)]
    return {"bad": bad, "acknowledged": acknowledged}


def _read_some(pipe: int, chance: random.Random) -> bytes:
    """Read until the writer did some of its work and a random moment passed: a kill comes early or late in a call."""
    # By progress and not by the clock: on a busy machine the writer would not have begun, and nothing would be shown.
    wanted, messages = int(chance.random() ** 2 * 60) * MESSAGE.size, b""
    while len(messages) <= wanted and select.select([pipe], [], [], 30)[0]:
        chunk = os.read(pipe, 1 << 16)
        if not chunk:
            break
        messages += chunk
    time.sleep(chance.random() ** 3 * 0.01)
    return messages


def _write_for_ever(store: Any, pipe: int, version: int, flush_every: int, seed: int) -> None:
    chance = random.Random(seed)
    while True:
        version += 1
        key = chance.randrange(KEYS)
        dice = chance.random()
        if dice < 0.1 and _name(key) in store:
            os.write(pipe, MESSAGE.pack(b"d", key, version))
            del store[_name(key)]
        elif dice < 0.2:
            batch = {key: chance.randrange(3000) for key in chance.sample(range(KEYS), 6)}
            for key in batch:
                os.write(pipe, MESSAGE.pack(b"s", key, version))
            store.setitems({_name(key): value(key, version, size) for key, size in batch.items()})
        else:
            size = chance.choice((0, 100, 5000, 5000, 200_000))
            os.write(pipe, MESSAGE.pack(b"s", key, version))
            store[_name(key)] = value(key, version, size)
        os.write(pipe, MESSAGE.pack(b"a", 0, version))
        if version % flush_every == 0:
            store.flush()
            os.write(pipe, MESSAGE.pack(b"f", 0, version))


def _note(history: dict[int, list[tuple[int, bool]]], messages: bytes, promise: str) -> int:
    """Enter what the writer reported into the history; what can no longer be found leaves it."""
    final = b"a" if promise == "acknowledged" else b"f"
    count = 0
    for at in range(0, len(messages) - MESSAGE.size + 1, MESSAGE.size):
        what, key, version = MESSAGE.unpack_from(messages, at)
        count += what == b"a"
        if what in b"sd":
            history[key].append((version, what == b"s"))
        elif what == final:
            for past in history.values():
                del past[:-1]
    return count


def _inspect(store: Any) -> dict[str, Any]:
    names = {_name(key): key for key in range(KEYS)}
    versions, bad = {}, []
    listed = list(store)
    bad += [f"phantom key {name!r}" for name in listed if name not in names]
    if len(set(listed)) != len(listed) or len(store) != len(listed):
        bad.append(f"{len(listed)} keys listed, {len(set(listed))} of them different, and len is {len(store)}")
    for name, key in names.items():
        try:
            versions[str(key)] = version_of(key, store[name])
        except KeyError:
            if name in listed:
                bad.append(f"{name!r} is listed and not there")
        except Exception as exc:
            bad.append(f"{type(exc).__name__}: {exc}")
            versions[str(key)] = -1
    store.close()
    return {"versions": versions, "bad": bad}


# Failing system calls -----------------------------------------------------------------------------------------------

KEPT = {f"kept/{i}": value(i, 1, 3000) for i in range(5)}
BEFORE = {"over/small": b"old", "over/large": b"o" * 50_000, "gone": b"g" * 100}
#: What the worker does: each is done, or raises and changes nothing; then it is done again.
STEPS: list[tuple[str, dict[str, bytes | None]]] = [
    ("set", {"over/small": b"new"}),
    ("set", {"over/large": b"n" * 60_000}),
    ("set", {"fresh": b"f" * 10_000}),
    ("setitems", {f"batch/{i}": bytes([i]) * 2000 for i in range(5)}),
    ("flush", {}),
    ("del", {"gone": None}),
    ("set", {"last": b"l"}),
    ("close", {}),
]


#: System calls that change something, as far as a store could make them.
MUTATING = (
    "write,pwrite64,writev,pwritev,pwritev2,ftruncate,truncate,fallocate,fsync,fdatasync,msync,sync_file_range,"
    "rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat,symlink,symlinkat,copy_file_range,sendfile"
)
FAULTS = ("error=ENOSPC", "error=EIO", "signal=KILL")


def failing_calls(where: str, folder: Path, names: str = MUTATING, every: int = 1) -> dict[str, Any]:
    """Do the steps once for each of their system calls and each fault, with that one call failing.

    Parameters
    ----------
    every : int
        Take each so many-th call only, where there are many.

    Returns
    -------
    dict
        `calls`: how often each was made; `bad`: what was found wrong afterwards; `silent`: faults that raised no error;
        `missed`: calls that did not come in the run that was to meet the fault (see `_came`).
    """
    return _run(["failing_calls", where, str(folder), names, str(every)], timeout=110)


def _failing_calls(where: str, folder: str, names: str, every: str) -> dict[str, Any]:
    log = Path(folder, "strace.log")
    _opener(where)  # imported here, once
    _traced(where, _new(folder, "counted"), ["-e", f"trace={names}"], log)
    names = re.findall(r"^\d+ +(\w+)\(", log.read_text(), re.MULTILINE)
    calls = {name: names.count(name) for name in sorted(set(names))}
    bad: list[str] = []
    silent: list[str] = []
    missed: list[str] = []
    for call, count in calls.items():
        for nth in range(1, count + 1, int(every)):
            for fault in FAULTS:
                title = f"{call} {nth} of {count}, {fault}"
                found = _inject(where, _new(folder, title), call, fault, nth, log)
                bad += [f"{title}: {line}" for line in found["bad"]]
                if found["missed"]:
                    missed.append(title)
                elif not fault.endswith("KILL") and not found["raised"]:
                    silent.append(title)
    assert len(missed) * 4 <= sum(calls.values()) * len(FAULTS), f"most calls did not come: {missed}"
    return {"calls": calls, "bad": bad, "silent": silent, "missed": missed}


def _came(log: str, call: str) -> int:
    """Return how often a thread made a call: strace counts for each thread by itself, and threads share work anew."""
    threads = re.findall(rf"^(\d+) +{call}\(", log, re.MULTILINE)
    return max(map(threads.count, set(threads)), default=0)


def _new(folder: str, name: str) -> str:
    path = Path(folder, name)
    path.mkdir()
    return str(path)


def _inject(where: str, folder: str, call: str, fault: str, nth: int, log: Path) -> dict[str, Any]:
    report = _traced(where, folder, ["-e", f"trace={call}", "-e", f"inject={call}:{fault}:when={nth}"], log)
    bad = [report["panic"]] if report["panic"] else []
    text = log.read_text()
    missed = not report["killed"] and "INJECTED" not in text
    if missed and _came(text, call) >= nth:
        bad.append("the fault did not happen")
    found = _in_child(lambda: _as_text(_opener(where)(Path(folder))))
    if "panic" in found:
        return {
            "bad": [*bad, f"cannot be opened again: {found['panic']}"],
            "raised": report["raised"],
            "missed": missed,
        }
    expected: dict[str, list[str | None]] = {name: [_digest(v)] for name, v in (KEPT | BEFORE).items()}
    for number, (_, change) in enumerate(STEPS):
        for name, new in change.items():
            before = expected.get(name, [None])
            if number < report["done"]:
                expected[name] = [_digest(new)]
            elif number == report["done"] and report["killed"]:
                expected[name] = [*before, _digest(new)]
    for name in sorted(set(expected) | set(found)):
        if found.get(name) not in expected.get(name, [None]):
            bad.append(f"{name!r} is {found.get(name)} and should be one of {expected.get(name)}")
    return {"bad": bad, "raised": report["raised"], "missed": missed}


def _digest(content: bytes | None) -> str | None:
    return None if content is None else f"{len(content)} bytes, {zlib.crc32(content):08x}"


def _as_text(store: Any) -> dict[str, str | None]:
    found = {name: _digest(store[name]) for name in store}
    store.close()
    return found


def _traced(where: str, folder: str, options: list[str], log: Path) -> dict[str, Any]:
    # The worker reports through shared memory: its writes to a pipe would be system calls too.
    shared = mmap.mmap(-1, 1 << 16)
    shared[:8] = bytes(8)
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(theirs)
        store = _opener(where)(Path(folder))
        store.setitems(KEPT | BEFORE)
        store.flush()
        shared[0] = 1
        os.read(ours, 1)
        _work(store, shared)
        os._exit(0)
    os.close(ours)
    while shared[0] == 0:
        time.sleep(0.001)
    tracer = subprocess.Popen(
        ["strace", "-f", "-p", str(child), "-o", str(log), *options], stderr=subprocess.PIPE, text=True
    )
    try:
        while f"TracerPid:\t{tracer.pid}\n" not in Path(f"/proc/{child}/status").read_text():
            assert tracer.poll() is None, f"strace: {tracer.stderr.read() if tracer.stderr else ''}"
            time.sleep(0.001)
        os.write(theirs, b"!")
    finally:
        os.close(theirs)
        _, status = os.waitpid(child, 0)
        tracer.wait()
        if tracer.stderr:
            tracer.stderr.close()
    size = int.from_bytes(shared[4:8], "little")
    report: dict[str, Any] = json.loads(shared[8 : 8 + size] or '{"done": 0, "raised": [], "panic": ""}')
    report["killed"] = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    if os.WIFSIGNALED(status) and not report["killed"]:
        report["panic"] = f"the process died of {signal.Signals(os.WTERMSIG(status)).name}"
    return report


def _work(store: Any, shared: mmap.mmap) -> None:
    found: dict[str, Any] = {"done": 0, "raised": [], "panic": ""}

    def report() -> None:
        text = json.dumps(found).encode()
        shared[8 : 8 + len(text)] = text
        shared[4:8] = len(text).to_bytes(4, "little")

    for what, change in STEPS:
        try:
            _step(store, what, change)
        except OSError as exc:
            found["raised"].append(f"{what}: {type(exc).__name__}: {exc}")
            held = {name: store.get(name) for name in change}
            if any(held[name] not in (new, BEFORE.get(name)) for name, new in change.items()):
                found["panic"] = f"after the failed {what} the store holds neither the old nor the new value"
            try:  # the fault was for once: the same object works
                _step(store, what, change)
            except Exception as again:
                found["panic"] = f"{what} failed twice: {exc}; {type(again).__name__}: {again}"
                break
        except Exception as exc:
            found["panic"] = f"{what}: {type(exc).__name__}: {exc}"
            break
        found["done"] += 1
        report()
    report()


def _step(store: Any, what: str, change: dict[str, bytes | None]) -> None:
    if what == "set":
        for name, new in change.items():
            store[name] = new
    elif what == "setitems":
        store.setitems(change)
    elif what == "del":
        for name in change:
            # Who deletes again what an error left half done finds it gone.
            store.pop(name, None)
    else:
        getattr(store, what)()


# Processes ----------------------------------------------------------------------------------------------------------


def _in_child(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what `work` returns in a forked process; ``{"panic": …}`` if it ended otherwise."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours)
        try:
            result = work()
        except BaseException as exc:
            result = {"panic": f"{type(exc).__name__}: {exc}", "bad": [f"{type(exc).__name__}: {exc}"], "versions": {}}
        with os.fdopen(theirs, "w") as pipe:
            json.dump(result, pipe)
        os._exit(0)
    os.close(theirs)
    text = os.fdopen(ours, "r").read()
    _, status = os.waitpid(child, 0)
    if not text:
        died = f"the process that looked ended with status {status}"
        return {"panic": died, "bad": [died], "versions": {}}
    return json.loads(text)  # type: ignore[no-any-return]


def _run(arguments: list[str], timeout: float) -> dict[str, Any]:
    checkout = Path(__file__).parent.parent.parent
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.crash", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=checkout,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    print(json.dumps({"kills": _kills, "failing_calls": _failing_calls}[what](*rest)))
