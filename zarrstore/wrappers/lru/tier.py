"""The second tier of a cache: values in any mapping, that outlive the process, within a budget that several may share.

An entry is one value of the mapping, ``values/<key as one segment>``. It checks itself: the key, the length and a
CRC-32 stand in its head, so what was damaged, or belongs to another key, is passed by.

The budget is true at every moment, whoever else uses the mapping and whoever died using it, without a lock: what a
process is about to add it claims first. It writes its claim, reads the claims of all others, lists what is stored, and
goes on only if all that together is within the budget. Of two that claim at once, the later one sees the claim of the
other. A claim is good for many entries, so most additions list nothing. Because what counts is the listing, nothing
that a crash left behind is ever untracked.
"""

from __future__ import annotations

import hashlib
import os
import platform
import struct
import threading
import time
import uuid
import weakref
import zlib
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from functools import cache

from zarrstore import keys as k
from zarrstore.base import Store

__all__ = ["Tier"]

_MAGIC = b"ZSC1"
# magic, CRC-32 of all that follows it, seconds since 1970, length of the key, length of the value
_HEAD = struct.Struct("<4sIdIQ")
_CHECKED_FROM = 8

_VALUES = "values"
_CLAIMS = "claims"
#: A claim asks for this part of the budget: so much is listed once.
_SHARE = 16
#: A claim is void for others after so many seconds, and renewed by its owner after half of them.
_CLAIM_LASTS = 600.0
#: Names of entries are shorter than this; longer ones are hashed. LMDB takes 511 bytes, file systems 255.
_LONGEST_NAME = 200


#: The tiers of this process by session: what was let go without `close` claims nothing any more.
_OPEN: weakref.WeakValueDictionary[str, Tier] = weakref.WeakValueDictionary()


class Tier:
    """Values of a slow store, kept in a faster one; none of its errors fails a read.

    Parameters
    ----------
    store : Store
        Where the entries are kept.
    budget : int or None, bytes
        What all entries together may take, heads included; None is no limit.
    max_age : float or None, seconds
        Entries stored longer ago are not there.

    Notes
    -----
    Threads: safe. Processes: the budget is shared by all that use the same place, if `store` says that it is safe for
    processes. Eviction is least recently used as far as this process knows; what it found at the opening counts as
    older than what it used.
    """

    def __init__(self, store: Store, budget: int | None, max_age: float | None) -> None:
        self.store = store
        self.budget = budget
        self.max_age = max_age
        self.hits = self.errors = self.evictions = 0
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self.restart()

    def restart(self) -> None:
        """Begin a session of its own: at the opening, and in the child after a fork."""
        self._lock = threading.Lock()
        self._room = 0
        self._pending = 0
        self._claimed_at = -float("inf")
        self._session = f"{_host()}-{os.getpid()}-{uuid.uuid4().hex[:12]}"
        _OPEN[self._session] = self

    def open(self) -> None:
        """Find what earlier sessions left, and bring it within the budget."""
        if self._safely(self._find_all) and self.budget is not None and self.size > self.budget:
            if self._safely(lambda: self._evict(0, 0)):
                self._safely(self._find_all)

    @property
    def size(self) -> int:
        """Bytes of the entries, as last seen."""
        return sum(list(self._sizes.values()))

    def __len__(self) -> int:
        return len(self._sizes)

    # Reading

    def holds(self, key: str) -> bool:
        """Tell whether an entry of `key` is known."""
        return _name(key) in self._sizes

    def get(self, key: str) -> tuple[bytes, float] | None:
        """Return a value and its age in seconds, None if there is none that can be trusted."""
        name = _name(key)
        place = k.join(_VALUES, name)
        try:
            entry = self.store._get(place)
        except KeyError:
            self._sizes.pop(name, None)
            return None
        except Exception:
            self.errors += 1
            return None
        found = _unpack(key, entry)
        if found is None:
            self.errors += 1
            self._safely(lambda: self._remove(name))
            return None
        value, stored = found
        now = time.time()
        if self.max_age is not None and not -self.max_age < now - stored < self.max_age:
            return None
        self.hits += 1
        with suppress(KeyError):
            self._sizes.move_to_end(name)
        return value, max(0.0, now - stored)

    # Adding

    def put(self, key: str, value: bytes, age: float) -> None:
        """Keep a value that was true `age` seconds ago, if the budget allows."""
        name = _name(key)
        entry = _pack(key, value, time.time() - age)
        if not self.store.capabilities.writable:
            return
        if not self._reserve(len(entry)):
            return
        try:
            stored = self._safely(lambda: self.store._set(k.join(_VALUES, name), entry))
        finally:
            with self._lock:
                self._pending -= len(entry)
        if stored:
            self._sizes[name] = len(entry)
            with suppress(KeyError):
                self._sizes.move_to_end(name)

    def _reserve(self, size: int) -> bool:
        """Tell whether `size` bytes may be added now; they count as pending until they are stored."""
        if self.budget is None:
            with self._lock:
                self._pending += size
            return True
        if size > self.budget:
            return False
        with self._lock:
            stale = time.time() - self._claimed_at > _CLAIM_LASTS / 2
            if self._room < size or stale:
                self._room = 0
                if not (self._safely(lambda: self._claim(size)) and self._room >= size):
                    return False
            self._room -= size
            self._pending += size
            return True

    def _claim(self, size: int) -> None:
        """Set `_room` to what may be added, at least `size`, evicting to make room; 0 if there is none."""
        assert self.budget is not None
        wanted = max(size, self.budget // _SHARE)
        shared = self.store.capabilities.process_safe
        mine = k.join(_CLAIMS, self._session)
        for want in (wanted, size):
            # Claimed before the others are read, and they before the entries are listed: whatever another process
            # adds meanwhile is covered by a claim that was read, or by its check, which sees this claim.
            self._claimed_at = time.time()
            if shared:
                self.store._set(mine, f"{want + self._pending} {self._claimed_at}".encode())
            others = self._claims_of_others() if shared else 0
            self._find_all()
            self._evict(others, want + self._pending)
            if self.size + others + want + self._pending <= self.budget:
                self._room = want
                return
        if shared:
            self.store._set(mine, f"{self._pending} {self._claimed_at}".encode())

    def _claims_of_others(self) -> int:
        total = 0
        for session in self.store._listdir(_CLAIMS):
            if session == self._session:
                continue
            place = k.join(_CLAIMS, session)
            try:
                claimed, at = self.store._get(place).split()
                if not _is_void(session, float(at)):
                    total += int(claimed)
                    continue
            except (KeyError, ValueError):
                pass
            with suppress(KeyError):
                self.store._delete(place)
        return total

    def _find_all(self) -> None:
        """Bring `_sizes` in line with what is stored, keeping the order of use."""
        found = {}
        for name in self.store._listdir(_VALUES):
            with suppress(KeyError):
                found[name] = self.store._nbytes(k.join(_VALUES, name))
        # list() is one step: readers, who take no lock, move names about meanwhile.
        for name in list(self._sizes):
            if name not in found:
                self._sizes.pop(name, None)
        self._sizes.update(found)

    def _evict(self, others: int, wanted: int) -> None:
        """Remove the least recently used until `wanted` bytes fit beside the claims of others."""
        assert self.budget is not None
        excess = self.size + others + wanted - self.budget
        # One who cannot win this way, however much goes, does not empty the tier for the trial.
        if excess <= 0 or others + wanted > self.budget:
            return
        for name, size in list(self._sizes.items()):
            if excess <= 0:
                return
            self._remove(name)
            self.evictions += 1
            excess -= size

    # Removing

    def forget(self, key: str) -> None:
        """Remove the entry of a key that is about to change.

        Unlike all else here this may raise: an entry that cannot be removed would come back when the tier is next
        opened.
        """
        self._must_remove(_name(key))

    def forget_tree(self, path: str) -> None:
        """Remove the entries of all keys at or below a path, also those that other processes added."""
        for name in list(self.store._listdir(_VALUES)):
            key = None if _is_hashed(name) else k.from_name(name)
            if key is None or not path or key == path or k.is_below(key, path):
                self._must_remove(name)

    def _remove(self, name: str) -> None:
        with suppress(KeyError):
            self.store._delete(k.join(_VALUES, name))
        self._sizes.pop(name, None)

    def _must_remove(self, name: str) -> None:
        # A tier that cannot be written is no hindrance as long as it holds nothing of the key.
        if not self.store.capabilities.erasable or not self.store.capabilities.writable:
            if not self.store._contains(k.join(_VALUES, name)):
                return
        try:
            self._remove(name)
        except Exception as exc:
            self.errors += 1
            exc.add_note(f"the cache {self.store!r} could not forget the old value; nothing was written")
            raise

    def close(self) -> None:
        """Give the claim back; the entries stay, and so does the store, which others may use."""
        if self.store.capabilities.process_safe and self._claimed_at > 0:
            with self._lock:
                self._room, self._claimed_at = 0, -float("inf")
                self._safely(lambda: self.store._delete(k.join(_CLAIMS, self._session)))
        self._safely(self.store._flush)

    def _safely(self, act: Callable[[], object]) -> bool:
        """Do it; count an error and tell that it failed."""
        try:
            act()
        except Exception:
            self.errors += 1
            return False
        return True


def _name(key: str) -> str:
    name = k.as_name(key)
    data = name.encode()
    return name if len(data) <= _LONGEST_NAME else "~" + hashlib.sha256(data).hexdigest()


def _is_hashed(name: str) -> bool:
    return name[:1] == "~"


def _pack(key: str, value: bytes, stored: float) -> bytes:
    text = key.encode()
    head = _HEAD.pack(_MAGIC, 0, stored, len(text), len(value))[_CHECKED_FROM:] + text
    return _MAGIC + struct.pack("<I", zlib.crc32(value, zlib.crc32(head))) + head + value


def _unpack(key: str, entry: bytes) -> tuple[bytes, float] | None:
    """Return the value and when it was stored, None if the entry is damaged or of another key."""
    if len(entry) < _HEAD.size:
        return None
    magic, crc, stored, key_length, length = _HEAD.unpack_from(entry)
    start = _HEAD.size + key_length
    if magic != _MAGIC or len(entry) != start + length or entry[_HEAD.size : start] != key.encode():
        return None
    if zlib.crc32(memoryview(entry)[_CHECKED_FROM:]) != crc:
        return None
    return entry[start:], stored


@cache
def _host() -> str:
    """Return a name for the machine and the container: a process id means something within one only."""
    space = ""
    with suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")
    return hashlib.sha256(f"{platform.node()} {space}".encode()).hexdigest()[:12]


def _is_void(session: str, at: float) -> bool:
    """Tell whether the owner of a claim is dead, or must have renewed it."""
    host, pid, _ = session.split("-")
    if abs(time.time() - at) > _CLAIM_LASTS:
        return True
    if host != _host():
        return False
    if int(pid) == os.getpid():
        return session not in _OPEN
    if os.name != "posix":
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
