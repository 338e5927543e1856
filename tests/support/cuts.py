"""What a power cut may leave: the writes and syncs of a process, recorded with strace, and replayed up to any point.

A file on the disk is what was synced, with any part of what was written since. `record` runs a script under strace and
returns its writes, syncs and marks in order; `states` yields, for points between them, copies of the files in which
all, none, or some pages of what was not synced are there. No mount and no special rights: it is the deterministic twin
of a power cut, and meets more orders than a disk does.
"""

from __future__ import annotations

import random
import re
import shutil
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

_NAMES = {
    "unlink": "unlink",
    "unlinkat": "unlink",
    "rename": "rename",
    "renameat": "rename",
    "renameat2": "rename",
    "link": "link",
    "linkat": "link",
    "mkdir": "mkdir",
    "mkdirat": "mkdir",
    "rmdir": "rmdir",
}
_CALLS = ",".join(
    [
        "openat",
        "pwrite64",
        "pwritev",
        "pwritev2",
        "writev",
        "write",
        "lseek",
        "fsync",
        "fdatasync",
        "ftruncate",
        "fallocate",
        *_NAMES,
    ]
)
_LINE = re.compile(r"^(?:\d+ +)?(\w+)\((.*)\) += (-?\d+)")
_FD = re.compile(r"^(\d+)<([^>]*)>")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


@dataclass
class Event:
    """One step: `what` is write, synced write, sync, truncate, mark, or of names: create, mkdir, unlink, rmdir, rename
    and link (`data` is the second name), sync folder.
    """

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
    folders: set[int] = set()  # those of directories
    for line in log.read_text().splitlines():
        assert "<unfinished" not in line, "calls of several threads overlap: record a script of one thread"
        match = _LINE.match(line)
        if match is None:
            continue
        call, text, result = match[1], match[2], int(match[3])
        if call in _NAMES:
            names = _texts(text)
            if result == 0 and names and names[0].startswith(folder):
                assert call != "unlinkat" or "AT_REMOVEDIR" not in text
                yield Event(_NAMES[call], names[0], data=names[-1].encode())
            continue
        if call == "openat":
            for kind, is_of_kind in ((synced, "O_DSYNC" in text or "O_SYNC" in text), (folders, "O_DIRECTORY" in text)):
                kind.add(result) if is_of_kind else kind.discard(result)
            for known in [known for known in positions if known.startswith(f"{result}<")]:
                del positions[known]
            if result >= 0 and "O_CREAT" in text and (path := _texts(text)[0]).startswith(folder + "/"):
                yield Event("create", path)
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
        if call == "fsync" and int(found[1]) in folders and result == 0 and (path + "/").startswith(folder + "/"):
            yield Event("sync folder", path)
            continue
        if not path.startswith(folder + "/") or result < 0:
            continue
        if call == "lseek":
            positions[fd] = result
        elif call in ("pwrite64", "pwritev", "pwritev2"):
            data = b"".join(strings)[:result]
            assert len(data) == result
            what = "synced write" if int(found[1]) in synced else "write"
            offset = text.rsplit(",", 2)[1] if call == "pwritev2" else text.rsplit(",", 1)[1]
            yield Event(what, path, int(offset), data)
        elif call in ("write", "writev"):
            data = b"".join(strings)[:result]
            yield Event("write", path, positions.get(fd, 0), data)
            positions[fd] = positions.get(fd, 0) + result
        elif call in ("fsync", "fdatasync"):
            yield Event("sync", path)
        elif call == "ftruncate":
            yield Event("truncate", path, int(text.rsplit(",", 1)[1]))
        elif call == "fallocate" and "KEEP_SIZE" not in text:
            start, length = map(int, text.rsplit(",", 2)[1:])
            yield Event("grow", path, start + length)


def _texts(arguments: str) -> list[str]:
    """Return the strings among the arguments of a call."""
    return [bytes.fromhex(name.replace("\\x", "")).decode() for name in _STRING.findall(arguments)]


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
        elif event.what in ("write", "truncate", "grow"):
            self.pending.setdefault(event.path, []).append(event)
        elif event.what == "unlink":
            # A name that is gone may be there still; here the directory is always as new as can be.
            self.durable.pop(event.path, None)
            self.pending.pop(event.path, None)

    def after_cuts(self, chance: random.Random) -> Iterator[dict[str, bytes]]:
        """Yield what may be there: nothing of what was written since the last sync, all of it, and any half."""
        for share in (0.0, 1.0, 0.5):
            yield self._after_cut(chance, share)

    def _after_cut(self, chance: random.Random, share: float) -> dict[str, bytes]:
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
    if change.what == "grow":
        content.extend(bytes(max(0, change.offset - len(content))))
        return
    if change.what == "truncate":
        del content[change.offset :]
        content.extend(bytes(change.offset - len(content)))
        return
    if len(content) < change.offset:
        content.extend(bytes(change.offset - len(content)))
    content[change.offset : change.offset + len(change.data)] = change.data


@dataclass
class Journal:
    """Files and their names on a file system that journals names, and writes contents back whenever it likes.

    Names reach the disk in the order in which they changed (ext4, xfs): all of them up to the last sync of a directory,
    and any number of those since. A file that has its name may lack all that was written to it since its last sync.
    """

    names: dict[str, int]
    contents: list[bytearray]
    live: dict[str, int]
    since: list[Event] = field(default_factory=list)
    pending: dict[int, list[Event]] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path) -> Journal:
        files = [path for path in folder.rglob("*") if path.is_file()]
        names = {str(path): number for number, path in enumerate(files)}
        return cls(names, [bytearray(path.read_bytes()) for path in files], dict(names))

    def apply(self, event: Event) -> None:
        if event.what in ("create", "link", "rename", "unlink"):
            if event.what == "create" and event.path in self.live:
                return
            if event.what == "create":
                self.contents.append(bytearray())
                event = Event("create", event.path, len(self.contents) - 1)
            _rename(self.live, event)
            self.since.append(event)
        elif event.what == "sync folder":
            for change in self.since:
                _rename(self.names, change)
            self.since.clear()
        elif event.path in self.live:
            file = self.live[event.path]
            if event.what == "sync":
                for change in self.pending.pop(file, []):
                    _apply(self.contents[file], change)
            elif event.what == "synced write":
                _apply(self.contents[file], event)
            elif event.what in ("write", "truncate", "grow"):
                self.pending.setdefault(file, []).append(event)

    def after_cuts(self, chance: random.Random) -> Iterator[dict[str, bytes]]:
        """Yield what may be there: of the names changed and of the pages written, none, all and any part."""
        for count, share in (
            (0, 0.0),
            (len(self.since), 0.0),
            (len(self.since), 1.0),
            (chance.randint(0, len(self.since)), 0.5),
        ):
            names = dict(self.names)
            for change in self.since[:count]:
                _rename(names, change)
            yield {path: self._content(file, chance, share) for path, file in sorted(names.items())}

    def _content(self, file: int, chance: random.Random, share: float) -> bytes:
        content = bytearray(self.contents[file])
        for change in self.pending.get(file, []):
            for part in _pages(change):
                if chance.random() < share:
                    _apply(content, part)
        return bytes(content)


def _rename(names: dict[str, int], event: Event) -> None:
    dest = event.data.decode()
    if event.what == "create":
        names[event.path] = event.offset
    elif event.what == "unlink":
        names.pop(event.path, None)
    elif event.what == "link":
        names[dest] = names[event.path]
    else:
        for path in [path for path in names if (path + "/").startswith(event.path + "/")]:
            names[dest + path[len(event.path) :]] = names.pop(path)


def states(
    before: Disk | Journal, events: list[Event], folder: Path, into: Path, seed: int, every: int = 1
) -> Iterator[tuple[Path, list[str]]]:
    """Yield folders in which a power cut may leave the files, each with the marks that came before the cut.

    Parameters
    ----------
    before : Disk or Journal
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
        for files in before.after_cuts(chance):
            target = into / "cut"
            target.mkdir(parents=True)
            for path, content in files.items():
                place = target / Path(path).relative_to(folder)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(content)
            yield target, list(marks)
            if target.exists():
                shutil.rmtree(target)
