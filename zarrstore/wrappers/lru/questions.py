"""The questions that a cache asks the store below: for each, where its answer is remembered and looked up.

Two readers that ask equal questions about one key share one read. A question is a small immutable object; those without
parameters are constants.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from zarrstore.wrappers.lru.memory import UNKNOWN_SIZE, Memory

__all__ = ["CHILDREN", "PRESENCE", "SIZE", "WHOLE", "Question", "Range", "Ranges", "Suffix"]


class Question:
    """One kind of question; `known` returns None for "ask the store", and raises KeyError for a missing key."""

    #: The answer is a value or parts of one: it counts as a hit or a miss.
    is_of_bytes = False
    #: The question is about a path, not about a key.
    is_listing = False

    def known(self, memory: Memory, key: str) -> Any:
        """Return the answer that is in memory, None if there is none."""
        raise NotImplementedError

    def remember(self, memory: Memory, key: str, answer: Any, born: float) -> None:
        """Keep an answer that was true at `born` (monotonic)."""
        raise NotImplementedError

    def used(self, memory: Memory, key: str) -> None:
        """Note that an answer in memory is handed out."""


class _Whole(Question):
    is_of_bytes = True

    def known(self, memory: Memory, key: str) -> bytes | None:
        value = memory.values.get(key)
        if value is None:
            memory.refuse_missing(key)
        return value

    def remember(self, memory: Memory, key: str, answer: bytes, born: float) -> None:
        memory.missing.pop(key)
        memory.values.put(key, answer, born)

    def used(self, memory: Memory, key: str) -> None:
        memory.values.hit(key)


class _Presence(Question):
    def known(self, memory: Memory, key: str) -> bool | None:
        if memory.values.has(key) or memory.sizes.get(key) is not None:
            return True
        if memory.missing.get(key):
            return False
        return memory.is_listed(key)

    def remember(self, memory: Memory, key: str, answer: bool, born: float) -> None:
        if not answer:
            memory.remember_missing(key, born)
        elif memory.sizes.peek(key) is None:
            memory.missing.pop(key)
            memory.sizes.put(key, UNKNOWN_SIZE, born)


class _Size(Question):
    def known(self, memory: Memory, key: str) -> int | None:
        value = memory.values.get(key)
        size = memory.size(key) if value is None else len(value)
        if size is None:
            memory.refuse_missing(key)
        return size

    def remember(self, memory: Memory, key: str, answer: int, born: float) -> None:
        memory.missing.pop(key)
        memory.sizes.put(key, answer, born)


class _Children(Question):
    is_listing = True

    def known(self, memory: Memory, path: str) -> Any:
        return memory.listings.children.get(path)

    def remember(self, memory: Memory, path: str, answer: Any, born: float) -> None:
        memory.listings.children.put(path, answer, born)


WHOLE, PRESENCE, SIZE, CHILDREN = _Whole(), _Presence(), _Size(), _Children()


@dataclass(frozen=True)
class Range(Question):
    """Bytes `start` to `stop` (None: the end) of a value."""

    start: int
    stop: int | None
    is_of_bytes = True

    def known(self, memory: Memory, key: str) -> bytes | None:
        value = memory.values.get(key)
        if value is not None:
            return self.of(value)
        part = memory.values.part(key, self.start, self.stop, memory.size(key))
        if part is None:
            memory.refuse_missing(key)
        return part

    def of(self, value: bytes) -> bytes:
        """Return this part of a whole value."""
        return value[self.start : self.stop]

    def remember(self, memory: Memory, key: str, answer: bytes, born: float) -> None:
        if self.start == 0 and self.reaches_end(answer):
            WHOLE.remember(memory, key, answer, born)
            return
        memory.missing.pop(key)
        if answer and self.reaches_end(answer):
            memory.sizes.put(key, self.start + len(answer), born)
        memory.values.put_part(key, self.start, answer, born)

    def reaches_end(self, answer: bytes) -> bool:
        """Tell whether an answer ends where the value ends, or lies behind its end."""
        return self.stop is None or len(answer) < self.stop - self.start

    def used(self, memory: Memory, key: str) -> None:
        memory.values.hit(key)


@dataclass(frozen=True)
class Suffix(Question):
    """The last `n` bytes of a value."""

    n: int
    is_of_bytes = True

    def known(self, memory: Memory, key: str) -> bytes | None:
        value = memory.values.get(key)
        if value is not None:
            return self.of(value)
        part = memory.values.suffix(key, self.n, memory.size(key))
        if part is None:
            memory.refuse_missing(key)
        return part

    def of(self, value: bytes) -> bytes:
        """Return this part of a whole value."""
        return value[max(0, len(value) - self.n) :]

    def is_whole(self, answer: bytes) -> bool:
        """Tell whether an answer is shorter than what was asked for, and so the whole value."""
        return len(answer) < self.n

    def remember(self, memory: Memory, key: str, answer: bytes, born: float) -> None:
        memory.missing.pop(key)
        if self.is_whole(answer):
            memory.values.put(key, answer, born)
        elif self.n:
            memory.values.put_suffix(key, answer, born)

    def used(self, memory: Memory, key: str) -> None:
        memory.values.hit(key)


@dataclass(frozen=True)
class Ranges(Question):
    """Several ranges of one value, the answer a list."""

    parts: tuple[Range, ...]
    is_of_bytes = True

    def known(self, memory: Memory, key: str) -> list[bytes] | None:
        found = [part.known(memory, key) for part in self.parts]
        return None if any(part is None for part in found) else found  # type: ignore[return-value]

    def remember(self, memory: Memory, key: str, answer: list[bytes], born: float) -> None:
        for part, data in zip(self.parts, answer, strict=True):
            part.remember(memory, key, data, born)

    def used(self, memory: Memory, key: str) -> None:
        memory.values.hit(key)
