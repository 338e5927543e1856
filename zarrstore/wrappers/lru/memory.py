"""All that a cache remembers of the store below: values, what is missing, what is there, what is listed."""

from __future__ import annotations

from typing import Any

from zarrstore.wrappers.lru.facts import Facts, Listings
from zarrstore.wrappers.lru.values import Part, Values

__all__ = ["CHILDREN", "MOST_NAMES", "PRESENCE", "SIZE", "WHOLE", "Memory", "is_of_bytes", "part_of"]

#: Questions that one may ask of a key, besides that for a `Part` of its value.
WHOLE, PRESENCE, SIZE = "whole", "presence", "size"
#: The question that one may ask of a path.
CHILDREN = "children"

#: Size of a value that is known to be there, and no more.
_NO_SIZE = -2
#: Names that all remembered listings together may hold.
MOST_NAMES = 1 << 20


class Memory:
    """What is known, by question; the owner holds a lock around every method.

    Parameters
    ----------
    max_size : int or None, bytes
        Budget of the values.
    max_age, missing_ttl : float or None, seconds
        How long anything, and what is missing, is remembered.
    max_missing : int
        How many missing keys are remembered, and how many that are only known to exist.
    """

    def __init__(
        self, max_size: int | None, max_age: float | None, missing_ttl: float | None, max_missing: int
    ) -> None:
        self.values = Values(max_size, max_age)
        fading = [age for age in (missing_ttl, max_age) if age is not None]
        self.missing: Facts[bool] = Facts(max_missing, min(fading, default=None))
        self.present: Facts[int] = Facts(max_missing, max_age)
        self.listings = Listings(MOST_NAMES, max_age)

    def known(self, key: str, question: object) -> Any:
        """Return the answer to a question, None if it is not known; KeyError if the key is known to be missing."""
        if question is CHILDREN:
            return self.listings.children.get(key)
        answer: Any = self.values.get(key)
        if question is PRESENCE:
            answer = True if self.values.has(key) or self.present.get(key) is not None else None
        elif question is SIZE:
            size = self.present.get(key) if answer is None else len(answer)
            answer = None if size == _NO_SIZE else size
        elif isinstance(question, tuple):
            answer = self.values.get(key, question) if answer is None else part_of(answer, question)
        if answer is None and self.missing.get(key):
            if question is PRESENCE:
                return False
            raise KeyError(key)
        return answer

    def lacks(self, key: str) -> bool:
        """Tell whether neither the value of a key is here, nor its absence known."""
        return self.values.get(key) is None and not self.missing.get(key)

    def remember(self, key: str, question: object, answer: Any, born: float) -> None:
        """Keep an answer that was true at `born` (monotonic)."""
        if question is CHILDREN:
            self.listings.children.put(key, answer, born)
            return
        if question is PRESENCE and not answer:
            self.remember_missing(key, born)
            return
        self.missing.pop(key)
        if question is WHOLE:
            self.values.put(key, answer, born)
        elif question is SIZE:
            self.present.put(key, answer, born)
        elif question is PRESENCE:
            self.present.put(key, _NO_SIZE, born)
        elif isinstance(question, tuple):
            self.values.put(key, answer, born, question)

    def remember_missing(self, key: str, born: float) -> None:
        """Keep that a key was missing at `born`."""
        self.values.forget(key)
        self.present.pop(key)
        self.missing.put(key, True, born)

    def forget(self, key: str, *, gone: bool) -> None:
        """Forget what a write of a key, or its deletion, makes untrue."""
        self.values.forget(key)
        self.missing.pop(key)
        self.present.pop(key)
        self.listings.changed(key, gone=gone)

    def forget_tree(self, path: str, *, listings: bool = True) -> None:
        """Forget what stands at and below a path, and the listings above it."""
        self.values.forget_tree(path)
        self.missing.forget_tree(path)
        self.present.forget_tree(path)
        if listings:
            self.listings.forget_around(path)

    def forget_keys(self) -> None:
        """Forget everything but the values."""
        self.missing.clear()
        self.present.clear()
        self.listings.clear()

    def recount(self) -> None:
        """Bring all bookkeeping in line with what is held: a fork may have copied it half done."""
        self.values.recount()
        self.missing.recount()
        self.present.recount()
        self.listings.recount()


def is_of_bytes(question: object) -> bool:
    """Tell whether the answer is a value or a part of one."""
    return question is WHOLE or isinstance(question, tuple)


def part_of(value: bytes, part: Part) -> bytes:
    """Return a part of a whole value."""
    how, start, stop = part
    return value[max(0, len(value) - start) :] if how == "suffix" else value[start:stop]
