"""What a power cut may leave: the writes and syncs of a process, recorded with strace, and replayed up to any point.

A file on the disk is what was synced, with any part of what was written since. `record` runs a script under strace and
returns its writes, syncs and marks in order; `states` yields, for points between them, copies of the files in which
all, none, or some pages of what was not synced are there. No mount and no special rights: it is the deterministic twin
of a power cut, and meets more orders than a disk does.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

CHECKOUT = Path(__file__).parent.parent.parent
#: What reaches a disk as one: the smallest part of a write that may be there without the rest, in bytes.
SECTOR = 4096
#: A script writes ``MARK <text>`` to this descriptor to say how far it has come.
MARKS = 2

_CALLS = "openat,pwrite64,pwritev,writev,write,lseek,fsync,fdatasync,ftruncate,unlink,rename,link"
_LINE = re.compile(r"^(?:\d+ +)?(\w+)\((.*)\) += (-?\d+)")
_FD = re.compile(r"^(\d+)<([^>]*)>")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


@dataclass
class Event:
    """One step: `what` is write, synced write, sync, truncate, unlink or mark."""

    what: str
    path: str = ""
    offset: int = 0
    data: bytes = b""


def record(script: str, folder: Path, *arguments: object) -> list[Event]:
    """Run a Python script under strace; return what it did to the files below `folder`, in order.

    Parameters
    ----------
    script : str
        Python source. ``sys.argv[1]`` is `folder`; files that are there already count as being on the disk.
    """
    log = folder.parent / (folder.name + ".strace")
    command = ["strace", "-f", "-y", "-xx", "-s", "9999999", "-o", str(log), "-e", f"trace={_CALLS}"]
    done = subprocess.run(
        [*command, sys.executable, "-c", textwrap.dedent(script), str(folder), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return list(_events(log, str(folder)))


def _events(log: Path, folder: str) -> Iterator[Event]:
    positions: dict[str, int] = {}
    synced: set[int] = set()  # descriptors whose every write reaches the disk
    for line in log.read_text().splitlines():
        assert "<unfinished" not in line, "calls of several threads overlap: record a script of one thread"
        match = _LINE.match(line)
        if match is None:
            continue
        call, text, result = match[1], match[2], int(match[3])
        if call in ("unlink", "rename", "link"):
            names = [bytes.fromhex(name.replace("\\x", "")).decode() for name in _STRING.findall(text)]
            if result == 0 and names and names[0].startswith(folder):
                yield Event(call, names[0], data=names[-1].encode())
            continue
        if call == "openat":
            if "O_DSYNC" in text or "O_SYNC" in text:
                synced.add(result)
            else:
                synced.discard(result)
            continue
        found = _FD.match(text)
        if found is None:
            continue
        fd, raw = found[0], found[2]
        path = bytes.fromhex(raw.replace("\\x", "")).decode() if "\\x" in raw else raw
        strings = [bytes.fromhex(s.replace("\\x", "")) for s in _STRING.findall(text)]
        if call == "write" and int(found[1]) == MARKS:
            if strings and strings[0].startswith(b"MARK "):
                yield Event("mark", data=strings[0][5:].strip())
            continue
        if not path.startswith(folder + "/") or result < 0:  # nor the folder: a new name counts as being on the disk
            continue
        if call == "lseek":
            positions[fd] = result
        elif call in ("pwrite64", "pwritev"):
            data = b"".join(strings)[:result]
            assert len(data) == result
            what = "synced write" if int(found[1]) in synced else "write"
            yield Event(what, path, int(text.rsplit(",", 1)[1]), data)
        elif call in ("write", "writev"):
            data = b"".join(strings)[:result]
            yield Event("write", path, positions.get(fd, 0), data)
            positions[fd] = positions.get(fd, 0) + result
        elif call in ("fsync", "fdatasync"):
            yield Event("sync", path)
        elif call == "ftruncate":
            yield Event("truncate", path, int(text.rsplit(",", 1)[1]))


@dataclass
class Disk:
    """Files as they are on the disk, and what was written to them since the last sync."""

    durable: dict[str, bytearray] = field(default_factory=dict)
    pending: dict[str, list[Event]] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path) -> Disk:
        return cls({str(path): bytearray(path.read_bytes()) for path in folder.rglob("*") if path.is_file()})

    def apply(self, event: Event) -> None:
        if event.what == "sync":
            content = self.durable.setdefault(event.path, bytearray())
            for change in self.pending.pop(event.path, []):
                _apply(content, change)
        elif event.what == "synced write":
            _apply(self.durable.setdefault(event.path, bytearray()), event)
        elif event.what in ("write", "truncate"):
            self.pending.setdefault(event.path, []).append(event)
        elif event.what == "unlink":
            # A name that is gone may be there still; here the directory is always as new as can be.
            self.durable.pop(event.path, None)
            self.pending.pop(event.path, None)

    def after_cut(self, chance: random.Random, share: float) -> dict[str, bytes]:
        """Return what may be there: of each page written since the last sync, the newest with probability `share`."""
        files = {}
        for path in sorted({*self.durable, *self.pending}):
            content = bytearray(self.durable.get(path, b""))
            for change in self.pending.get(path, []):
                for part in _pages(change):
                    if chance.random() < share:
                        _apply(content, part)
            files[path] = bytes(content)
        return files


def _pages(change: Event) -> Iterator[Event]:
    if change.what != "write":
        yield change
        return
    at = 0
    while at < len(change.data):
        step = SECTOR - (change.offset + at) % SECTOR
        yield Event("write", change.path, change.offset + at, change.data[at : at + step])
        at += step


def _apply(content: bytearray, change: Event) -> None:
    if change.what == "truncate":
        del content[change.offset :]
        content.extend(bytes(change.offset - len(content)))
        return
    if len(content) < change.offset:
        content.extend(bytes(change.offset - len(content)))
    content[change.offset : change.offset + len(change.data)] = change.data


def states(
    before: Disk, events: list[Event], folder: Path, into: Path, seed: int, every: int = 1
) -> Iterator[tuple[Path, list[str]]]:
    """Yield folders in which a power cut may leave the files, each with the marks that came before the cut.

    Parameters
    ----------
    before : Disk
        The files before the first event.
    every : int
        A cut after each so many-th event.
    """
    chance = random.Random(seed)
    marks: list[str] = []
    for number, event in enumerate(events):
        before.apply(event)
        if event.what == "mark":
            marks.append(event.data.decode())
            continue
        if number % every:
            continue
        for share in (0.0, 1.0, 0.5):
            target = into / "cut"
            for path, content in before.after_cut(chance, share).items():
                place = target / Path(path).relative_to(folder)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(content)
            yield target, list(marks)
            for place in sorted(target.rglob("*"), reverse=True):
                os.rmdir(place) if place.is_dir() else os.unlink(place)
            os.rmdir(target)
