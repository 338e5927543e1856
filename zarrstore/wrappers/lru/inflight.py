"""What is being read and written just now: one read for all who ask the same, and none that an own write overtakes.

A `Fetch` is one read below that all who ask the same question while it lasts share. A write marks the fetches of its
key as stale when it begins: those who wait for them get the answer (they asked before the write began), nobody else
joins, and the answer is not remembered. While a key is being written, each reader asks the store itself, for nobody can
know which value another one has seen. So the version of a key is the identity of its fetch, and costs no memory when
nobody reads or writes.

Every method of `InFlight` may be interrupted (KeyboardInterrupt) and called again: a Fetch, Write or copy is created
before it is entered in a table, and taking out what is not in the table does nothing.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import Any

from zarrstore import keys as k
from zarrstore.threads import Latch
from zarrstore.wrappers.lru.questions import Question

__all__ = ["Fetch", "InFlight", "Write", "result_of"]

#: How often a waiting thread checks that the reader is still alive, in seconds.
_CHECK = 1.0


class Fetch:
    """One read below: who does it, what came of it, whether that may be remembered."""

    __slots__ = (
        "answer",
        "born",
        "copies",
        "copying",
        "error",
        "event",
        "finished",
        "from_tier",
        "is_asked",
        "is_listing",
        "key",
        "owner",
        "question",
        "stale",
    )

    def __init__(self, key: str, question: Question | object, *, is_listing: bool = False) -> None:
        #: The key, or the path of a listing.
        self.key = key
        self.question = question
        self.is_listing = is_listing
        self.owner = threading.current_thread()
        self.born = time.monotonic()
        #: Not to be remembered: it was never joined, or was marked by a write or an `invalidate`.
        self.stale = True
        self.answer: Any = None
        self.error: BaseException | None = None
        self.finished = False
        #: The question is being asked, or was: not answered from memory or by another reader.
        self.is_asked = False
        #: The second tier had all of the answer.
        self.from_tier = False
        #: What is to be copied to the second tier: pairs of a question and its answer.
        self.copies: list[tuple[Question, bytes]] = []
        #: Set when the copy has been made, or will not be; a write of the key waits for it.
        self.copying: Latch | None = None
        # Created when the second reader joins: most fetches have one.
        self.event: Latch | None = None

    def finish(self, answer: Any, error: BaseException | None) -> None:
        """Give what came of it to everybody who waits."""
        self.answer, self.error = answer, error
        self.finished = True
        if self.event is not None:
            self.event.set()

    def wait(self) -> bool:
        """Wait for the answer; False if the reader died, or was stopped, without one."""
        if self.owner is threading.current_thread():
            return False  # this very thread was interrupted before it could finish
        assert self.event is not None
        while not self.event.wait(_CHECK):
            if not self.owner.is_alive() and not self.finished:
                return False
        # What stopped the reader (KeyboardInterrupt, cancellation) was meant for the reader alone.
        return self.error is None or isinstance(self.error, Exception)


def result_of(fetch: Fetch) -> Any:
    """Return what came of a fetch that has finished, or raise its error: KeyError for absence."""
    if fetch.error is None:
        return fetch.answer
    raise KeyError(fetch.key) if type(fetch.error) is KeyError else fetch.error


class Write:
    """A write in progress, of one key or of a whole subtree."""

    __slots__ = ("born", "has_ended", "is_alone", "is_tree", "path")

    def __init__(self, path: str, *, is_tree: bool = False) -> None:
        self.path = path
        self.is_tree = is_tree
        #: No other write of what this one writes overlapped it, so its outcome is known.
        self.is_alone = True
        self.has_ended = False
        self.born = time.monotonic()

    def covers(self, key: str) -> bool:
        """Tell whether `key` is what is written."""
        return key == self.path or (self.is_tree and k.is_below(key, self.path))


class InFlight:
    """All fetches and writes of a cache; the owner holds a lock around every method but `abandon`."""

    def __init__(self) -> None:
        self._fetches: dict[str, dict[tuple[str, object], Fetch]] = {}
        self._listings: dict[tuple[str, object], Fetch] = {}
        self._writes: dict[str, list[Write]] = {}
        self._trees: list[Write] = []
        self._copies: dict[str, list[Fetch]] = {}
        self._abandoned: deque[Fetch] = deque()

    # Readers

    def join(self, fetch: Fetch) -> Fetch | None:
        """Return the fetch to make (`fetch` itself) or to wait for; None while what is asked for is being written."""
        while self._abandoned:
            self.leave(self._abandoned.popleft())
        if self._is_written(fetch):
            return None
        table = self._listings if fetch.is_listing else self._fetches.setdefault(fetch.key, {})
        joined = table.setdefault((fetch.key, fetch.question), fetch)
        if joined is fetch:
            fetch.stale = False
        elif joined.event is None:
            joined.event = Latch()
        return joined

    def _is_written(self, fetch: Fetch) -> bool:
        key = fetch.key
        if fetch.is_listing:
            return any(k.is_below(written, key) for written in self._writes) or any(
                _overlap(tree.path, key) for tree in self._trees
            )
        return key in self._writes or any(tree.covers(key) for tree in self._trees)

    def leave(self, fetch: Fetch) -> None:
        """Take a fetch out, if a write has not done so already."""
        table = self._listings if fetch.is_listing else self._fetches.get(fetch.key, {})
        if table.get((fetch.key, fetch.question)) is fetch:
            del table[fetch.key, fetch.question]
        if not table and not fetch.is_listing:
            self._fetches.pop(fetch.key, None)

    def abandon(self, fetch: Fetch) -> None:
        """Take a fetch out at the next `join`. Takes no lock: the garbage collector may call this anywhere."""
        self._abandoned.append(fetch)

    # Writers

    def begin(self, write: Write) -> None:
        """Begin a write: what is read of it from now on is not remembered."""
        if write.is_tree:
            self._begin_tree(write)
            return
        key = write.path
        others = self._writes.setdefault(key, [])
        for other in (*others, *(tree for tree in self._trees if tree.covers(key))):
            other.is_alone = write.is_alone = False
        others.append(write)
        self.mark_stale(list(self._fetches.get(key, {}).values()))
        self.mark_stale([fetch for fetch in self._listings.values() if k.is_below(key, fetch.key)])

    def _begin_tree(self, tree: Write) -> None:
        for others in self._writes.values():
            for other in others:
                if tree.covers(other.path):
                    other.is_alone = tree.is_alone = False
        self._trees.append(tree)
        for fetches in [fetches for key, fetches in self._fetches.items() if tree.covers(key)]:
            self.mark_stale(list(fetches.values()))
        self.mark_stale([fetch for fetch in self._listings.values() if _overlap(tree.path, fetch.key)])

    def end(self, write: Write) -> None:
        """End a write, if it began."""
        if write.is_tree:
            if write in self._trees:
                self._trees.remove(write)
            return
        others = self._writes.get(write.path, [])
        if write in others:
            others.remove(write)
        if not others:
            self._writes.pop(write.path, None)

    def mark_stale(self, fetches: Iterable[Fetch]) -> None:
        """Let nobody else join these fetches, and their answers not be remembered."""
        for fetch in fetches:
            fetch.stale = True
            self.leave(fetch)

    def mark_all_stale(self) -> None:
        """Let nothing be remembered that is being read just now."""
        # Copied first: a fetch that is marked leaves its table.
        self.mark_stale([fetch for fetches in list(self._fetches.values()) for fetch in list(fetches.values())])
        self.mark_stale(list(self._listings.values()))

    # Copies into the second tier

    def begin_copy(self, fetch: Fetch) -> None:
        """Announce that what was just read is being copied: a write of the key waits for that."""
        fetch.copying = Latch()
        self._copies.setdefault(fetch.key, []).append(fetch)

    def end_copy(self, fetch: Fetch) -> None:
        """Let those go on who wait for the copy."""
        copies = self._copies.get(fetch.key, [])
        if fetch in copies:
            copies.remove(fetch)
        if not copies:
            self._copies.pop(fetch.key, None)
        if fetch.copying is not None:
            fetch.copying.set()

    def copies_of(self, write: Write) -> list[Fetch]:
        """Return the copies that a write must wait for: of what it is about to change."""
        if write.is_tree:
            return [fetch for key, copies in self._copies.items() if write.covers(key) for fetch in copies]
        return list(self._copies.get(write.path, ()))


def _overlap(path: str, other: str) -> bool:
    """Tell whether one path is, or lies within, the other."""
    return path == other or k.is_below(path, other) or k.is_below(other, path) or not path or not other
