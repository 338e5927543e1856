"""How several processes keep one mapping within one budget, without a lock that a mapping does not have.

What a process is about to add it *claims* first. To claim, it

1. writes its claim (bytes it wants, and bytes it is adding just now) under the name of its session,
2. reads the claims of all others,
3. lists what is stored, and removes entries to make room,
4. may add what it claimed if stored, others' claims and its own are together within the budget; otherwise it withdraws.

That keeps the budget at every moment. Assume that two processes add what together exceeds it. Both completed step 4, so
each found its own sum within the budget. Of their two writes in step 1 one came later; that process read the other's
claim in step 2, unless the other had already withdrawn it or used it up, and then what the other added was stored
before, and was listed in step 3. Either way the later one counted all that the other may add or has added: a
contradiction. A process that dies leaves a claim that is too large, never one that is too small. A claim is dropped
when its process is known to be dead; where that cannot be known (another machine), after `LIFETIME`, within half of
which the living renew theirs. What counts is the listing, so nothing that a crash left behind goes uncounted.
"""

from __future__ import annotations

import hashlib
import os
import platform
import time
import uuid
import weakref
from contextlib import suppress
from functools import cache

from zarrstore import keys as k
from zarrstore.base import Store

__all__ = ["LIFETIME", "Claim"]

CLAIMS = "claims"
#: A claim is void for others after so many seconds; its owner claims anew after half of them.
LIFETIME = 600.0

#: The claims of this process by session: a claim that was dropped without `withdraw` counts for nothing any more.
_OPEN: weakref.WeakValueDictionary[str, Claim] = weakref.WeakValueDictionary()


class Claim:
    """What this session may add to a shared store; the owner holds a lock around every method.

    Parameters
    ----------
    store : Store
        Where entries and claims are kept.

    Attributes
    ----------
    session : str
        Name of the claim: host, process, when that began, and a random part.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.session = f"{host()}-{os.getpid()}-{started(os.getpid())}-{uuid.uuid4().hex[:12]}"
        self._at = -float("inf")
        _OPEN[self.session] = self

    @property
    def is_shared(self) -> bool:
        """Whether other processes may use the store."""
        return self.store.capabilities.process_safe

    def needs_renewal(self) -> bool:
        """Tell whether others may soon take the claim for void."""
        return time.time() - self._at > LIFETIME / 2

    def write(self, nbytes: int) -> None:
        """Claim so many bytes, instead of what was claimed before."""
        self._at = time.time()
        if self.is_shared:
            self.store._set(k.join(CLAIMS, self.session), f"{nbytes} {self._at}".encode())

    def others(self) -> int:
        """Return the bytes that others have claimed, removing claims that are void."""
        if not self.is_shared:
            return 0
        total = 0
        for session in list(self.store._listdir(CLAIMS)):
            if session == self.session or not k.is_key(session):
                continue
            place = k.join(CLAIMS, session)
            try:
                claimed, at = self.store._get(place).split()
                if not is_void(session, float(at)):
                    total += max(0, int(claimed))
                    continue
            except KeyError:
                continue
            except (ValueError, OverflowError):
                pass  # not written by us
            with suppress(KeyError):
                self.store._delete(place)
        return total

    def withdraw(self) -> None:
        """Remove the claim."""
        if self.is_shared and self._at > 0:
            self._at = -float("inf")
            with suppress(KeyError):
                self.store._delete(k.join(CLAIMS, self.session))


@cache
def host() -> str:
    """Return a name for the machine and the container: a process id means something within one only."""
    space = ""
    with suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")
    return hashlib.sha256(f"{platform.node()} {space}".encode()).hexdigest()[:12]


def started(pid: int) -> str:
    """Return when a process of this machine began, in its own units; "" where that cannot be known."""
    with suppress(OSError, IndexError):
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            # The name of the program, in parentheses, may hold spaces and parentheses.
            return file.read().rpartition(")")[2].split()[19]
    return ""


def is_void(session: str, at: float) -> bool:
    """Tell whether the owner of a claim is dead, or must have renewed it; ValueError if it is no name of a session."""
    machine, pid, start, _ = session.split("-")
    number = int(pid)
    if not 0 < number < 1 << 31:
        raise ValueError(f"{pid} is no process")
    if machine == host():
        if number == os.getpid() and start == started(number):
            return session not in _OPEN
        if start and started(number):
            # Alive, however long it sleeps, or another process that was given the same number.
            return start != started(number)
        if _is_dead(number):
            return True
    return not abs(time.time() - at) <= LIFETIME


def _is_dead(pid: int) -> bool:
    if os.name != "posix":
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
