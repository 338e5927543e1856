"""Power cuts: the file system is shut down under a writer that goes on writing after its flush.

Each round makes a file system in an image, mounts it, lets a writer set, delete and flush, and shuts the file system
down at a random moment with what was not written back lost (``FS_IOC_SHUTDOWN``). It is mounted again, which replays
its journal, and the store is opened and compared with what the writer had been promised *before* the shutdown.

Needs Linux, root, loop devices and mkfs.ext4 or mkfs.xfs. Run one mode by hand::

    $ python -m tests.faults.powercut LMDBStore ext4 100
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import json
import os
import random
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.faults.modes import MODES
from tests.support import crash

_SHUTDOWN = 0x8004587D  # FS_IOC_SHUTDOWN
_WITHOUT_THE_LOG = struct.pack("I", 2)
_MESSAGE = struct.Struct("<cII")
KEYS = 80
_SIZE = {"ext4": 96 << 20, "xfs": 320 << 20}  # mkfs.xfs makes none below 300 MiB
_MKFS = {"ext4": ["mkfs.ext4", "-q", "-F"], "xfs": ["mkfs.xfs", "-q"]}


@functools.cache
def lacking(fs: str) -> str:
    """Return why this machine cannot run power cuts over a file system; empty if it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "power cuts need Linux and root"
    if not shutil.which(_MKFS[fs][0]):
        return f"no {_MKFS[fs][0]} on this machine"
    done = subprocess.run(_command("LMDBStore", fs, 0, 0), capture_output=True, text=True, cwd=_checkout())
    return "" if done.returncode == 0 else f"no loop mount of {fs}: {done.stderr.strip()[-200:]}"


def cuts(mode: str, fs: str, rounds: int, seed: int = 0) -> dict[str, Any]:
    """Cut the power `rounds` times; return what was lost or torn, and how much had been promised.

    Returns
    -------
    dict
        ``bad``: lines that say what was found wrong, in which round; ``promised``: keys whose value was durable at
        the cut; ``later``: writes that had begun after the last flush; ``cut``: rounds in which the shutdown came
        while the writer was at work; ``refused``: openings refused where the mode may refuse.
    """
    done = subprocess.run(
        _command(mode, fs, rounds, seed), capture_output=True, text=True, timeout=120 + 20 * rounds, cwd=_checkout()
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def _checkout() -> Path:
    return Path(__file__).parent.parent.parent


def _command(mode: str, fs: str, rounds: int, seed: int) -> list[str]:
    # A mount namespace of its own: whatever happens, the mounts end with the process.
    return ["unshare", "-m", sys.executable, "-m", "tests.faults.powercut", "inside", mode, fs, str(rounds), str(seed)]


def _run(mode: str, fs: str, rounds: int, seed: int) -> dict[str, Any]:
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    total: dict[str, Any] = {"bad": [], "rounds": 0, "promised": 0, "later": 0, "cut": 0, "refused": 0}
    with tempfile.TemporaryDirectory(prefix="zarrstore-power-", dir=memory) as name:
        folder = Path(name)
        template = folder / "template"
        with template.open("wb") as image:
            image.truncate(_SIZE[fs])
        subprocess.run([*_MKFS[fs], str(template)], check=True, stdout=subprocess.DEVNULL)
        (folder / "disk").mkdir()
        if rounds == 0:  # only to see whether it can be done
            with _Mounted(template, folder / "disk") as disk:
                disk.shut_down()
        for number in range(rounds):
            image = folder / "image"
            subprocess.run(["cp", "--sparse=always", template, image], check=True)
            found = _round(mode, image, folder / "disk", random.Random(seed * 100_003 + number))
            total["bad"] += [f"{mode} on {fs}, seed {seed}, round {number}: {line}" for line in found.pop("bad")]
            for counted, count in found.items():
                total[counted] += count
            total["rounds"] += 1
    return total


class _Mounted:
    """A file system in an image, mounted; at the end it is unmounted."""

    def __init__(self, image: Path, place: Path) -> None:
        self.image, self.place = image, place

    def __enter__(self) -> _Mounted:
        subprocess.run(["mount", "-o", "loop", str(self.image), str(self.place)], check=True)
        self.fd = os.open(self.place, os.O_RDONLY)
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self.fd)
        for _ in range(50):
            if subprocess.run(["umount", str(self.place)], stderr=subprocess.DEVNULL).returncode == 0:
                return
            time.sleep(0.02)
        subprocess.run(["umount", "-l", str(self.place)], check=True)

    def shut_down(self) -> None:
        fcntl.ioctl(self.fd, _SHUTDOWN, _WITHOUT_THE_LOG)

    def write_back(self) -> None:
        ctypes.CDLL(None).syncfs(self.fd)


def _round(mode: str, image: Path, place: Path, chance: random.Random) -> dict[str, Any]:
    opener, promise = MODES[mode].open, MODES[mode].power
    history: dict[int, list[tuple[int, bool]]] = {key: [(0, False)] for key in range(2 * KEYS)}
    with _Mounted(image, place) as disk:
        ours, theirs = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(ours)
            os.close(disk.fd)
            _write(opener, place, theirs, chance.randrange(1 << 30))
        os.close(theirs)
        before = _read_until_the_cut(ours, disk, chance)
        running = os.waitpid(child, os.WNOHANG)[0] == 0
        disk.shut_down()
        time.sleep(chance.random() * 0.005)  # what the writer does to a file system that is down must do no harm
        if running:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        after = b""
        while chunk := os.read(ours, 1 << 16):
            after += chunk
        os.close(ours)
    whole = len(before) - len(before) % _MESSAGE.size
    _note(history, before[:whole], promise)
    promised = sum(not (len(past) == 1 and past[0][0] == 0) for past in history.values())
    _note(history, before[whole:] + after, None)
    with _Mounted(image, place):
        found = crash._in_child(lambda: _inspect(opener, place, promise))
    bad = found["bad"] if "panic" not in found else [found["panic"]]
    if "panic" not in found and not found["refused"]:
        bad += _compare(history, found, promise, MODES[mode].new_may_tear)
    later = sum(len(past) > 1 for past in history.values())
    return {"bad": bad, "promised": promised, "later": later, "cut": running, "refused": found.get("refused", 0)}


def _read_until_the_cut(pipe: int, disk: _Mounted, chance: random.Random) -> bytes:
    """Read the writer's messages until some flushes returned and a random while passed; return all before the cut."""
    flushes, data = chance.randrange(1, 6), b""
    deadline = time.monotonic() + 20
    while data[:: _MESSAGE.size].count(b"f") < flushes and time.monotonic() < deadline:
        if select.select([pipe], [], [], 1)[0]:
            chunk = os.read(pipe, _MESSAGE.size * 4096)
            if not chunk:
                break
            data += chunk
    if chance.random() < 0.5:  # the system writes back when it likes
        disk.write_back()
    time.sleep(chance.random() ** 2 * 0.03)
    while select.select([pipe], [], [], 0)[0]:
        chunk = os.read(pipe, 1 << 16)
        if not chunk:
            break
        data += chunk
    return data


def _write(opener: Any, place: Path, pipe: int, seed: int) -> None:
    """Change and flush for ever; each message is one write to the pipe, before a change and after it returned."""
    try:
        writer = _Writer(opener(place), pipe, random.Random(seed))
        writer.set(range(KEYS), (0, 100, 3000))
        writer.flush()
        while True:
            for _ in range(writer.chance.randrange(1, 25)):
                writer.change()
            writer.flush()
    except OSError:  # the file system is down
        pass
    finally:
        os._exit(0)


class _Writer:
    """What changes a store, and reports it.

    A key below `KEYS` is ``a/...``; the one `KEYS` above it is where `rename` moves its value to, and back.
    """

    def __init__(self, store: Any, pipe: int, chance: random.Random) -> None:
        self.store, self.pipe, self.chance = store, pipe, chance
        self.version = 0
        self.versions: dict[int, int] = {}

    def flush(self) -> None:
        self.store.flush()
        os.write(self.pipe, _MESSAGE.pack(b"f", 0, self.version))

    def change(self) -> None:
        dice = self.chance.random()
        key = self.chance.randrange(KEYS)
        if dice < 0.10:
            self.delete([key])
        elif dice < 0.15:  # deleted and set again: the directory is pruned and made anew if it was the last
            self.delete([key])
            self.set([key], (100, 5000, 50_000))
        elif dice < 0.20:
            self.rename(key)
        elif dice < 0.22:
            self.remove_directory(key % 3)
        elif dice < 0.30:
            self.set(self.chance.sample(range(KEYS), 5), (0, 100, 3000, 5000, 50_000))
        else:
            self.set([key], (0, 100, 3000, 5000, 50_000))

    def set(self, keys: Iterable[int], sizes: tuple[int, ...]) -> None:
        self.version += 1
        keys = list(keys)
        self._report(*((b"s", key, self.version) for key in keys))
        self.store.setitems({_name(key): crash.value(key, self.version, self.chance.choice(sizes)) for key in keys})
        self.versions.update(dict.fromkeys(keys, self.version))
        self._acknowledge()

    def delete(self, keys: list[int]) -> None:
        self.version += 1
        keys = [key for key in keys if key in self.versions]
        self._report(*((b"d", key, self.version) for key in keys))
        self.store.delitems(_name(key) for key in keys)
        for key in keys:
            del self.versions[key]
        self._acknowledge()

    def rename(self, key: int) -> None:
        self.version += 1
        source, dest = (key, key + KEYS) if key in self.versions else (key + KEYS, key)
        if source not in self.versions:
            return
        if dest in self.versions:
            self.delete([dest])
        self._report((b"d", source, self.version), (b"s", dest, self.versions[source]))
        self.store.rename(_name(source), _name(dest))
        self.versions[dest] = self.versions.pop(source)
        self._acknowledge()

    def remove_directory(self, number: int) -> None:
        """Remove a directory, and set some of its keys again at once."""
        self.version += 1
        keys = [key for key in self.versions if key < KEYS and key % 3 == number]
        self._report(*((b"d", key, self.version) for key in keys))
        self.store.rmdir(f"a/{number}")
        for key in keys:
            del self.versions[key]
        self._acknowledge()
        if keys:
            self.set(keys[:7], (100, 5000, 50_000))

    def _report(self, *messages: tuple[bytes, int, int]) -> None:
        if messages:
            os.write(self.pipe, b"".join(_MESSAGE.pack(*message) for message in messages))

    def _acknowledge(self) -> None:
        self._report((b"a", 0, self.version))


def _name(key: int) -> str:
    return f"a/{key % 3}/{key}" if key < KEYS else f"b/{key - KEYS}"


def _note(history: dict[int, list[tuple[int, bool]]], messages: bytes, promise: str | None) -> None:
    """Enter what the writer reported; what it was promised drops the versions before it."""
    final = {"acknowledged": b"a", "flushed": b"f"}.get(promise or "")
    for what, key, version in _MESSAGE.iter_unpack(messages[: len(messages) - len(messages) % _MESSAGE.size]):
        if what in (b"s", b"d"):
            history[key].append((version, what == b"s"))
        elif what == final:
            for past in history.values():
                del past[:-1]


def _inspect(opener: Any, place: Path, promise: str | None) -> dict[str, Any]:
    versions, errors, bad = {}, {}, []
    try:
        store = opener(place)
    except OSError as exc:
        if promise == "whole":
            return {"versions": {}, "bad": [], "refused": 1}
        raise AssertionError(f"refused to open: {exc}") from exc
    listed = list(store)
    if len(store) != len(listed) or len(set(listed)) != len(listed):
        bad.append(f"{len(listed)} keys listed, {len(set(listed))} of them different, and len is {len(store)}")
    for key in range(2 * KEYS):
        try:
            versions[str(key)] = crash.version_of(key % KEYS, store[_name(key)])
        except KeyError:
            if _name(key) in listed:
                bad.append(f"{_name(key)!r} is listed and not there")
        except Exception as exc:
            errors[str(key)] = f"{_name(key)!r}: {type(exc).__name__}: {exc}"
    bad += [f"a key that nobody set: {name!r}" for name in set(listed) - {_name(key) for key in range(2 * KEYS)}]
    store["written/later"] = b"1"
    assert store["written/later"] == b"1"
    store.close()
    return {"versions": versions, "errors": errors, "bad": bad, "refused": 0}


def _compare(
    history: dict[int, list[tuple[int, bool]]], found: dict[str, Any], promise: str | None, new_may_tear: bool
) -> list[str]:
    bad = []
    for key, past in history.items():
        version = found["versions"].get(str(key))
        if str(key) in found["errors"]:
            if not (new_may_tear and past[0] == (past[0][0], False)):
                bad.append(f"{found['errors'][str(key)]}; it had {past[:4]}")
        elif version is None:
            if promise != "whole" and all(there for _, there in past):
                bad.append(f"{_name(key)!r} is lost; it had {past[:4]}")
        elif (version, True) not in past:
            bad.append(f"{_name(key)!r} has version {version}, of {past[:4]}")
    return bad


if __name__ == "__main__":
    run = cuts
    arguments = sys.argv[1:]
    if arguments[0] == "inside":  # the mount namespace of its own
        run = _run
        del arguments[0]
    print(json.dumps(run(*arguments[:2], *map(int, arguments[2:]))))
