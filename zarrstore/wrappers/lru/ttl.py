"""Answers that are bounded in number and forgotten after a time."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from zarrstore import keys as k

__all__ = ["TTLCache"]

T = TypeVar("T")


class TTLCache(Generic[T]):
    """Answers by key, the least recently used forgotten first; the owner holds a lock around every method.

    Parameters
    ----------
    max_weight : int
        What all answers together may weigh.
    lifetime : float or None, seconds
        Older answers are not given. None is for ever, 0 remembers nothing.
    weigh : callable, default one each
        Weight of an answer.
    """

    def __init__(self, max_weight: int, lifetime: float | None, weigh: Callable[[T], int] = lambda answer: 1) -> None:
        self.lifetime = lifetime
        self._max_weight = max_weight
        self._weigh = weigh
        self._weight = 0
        self._answers: OrderedDict[str, tuple[T, float, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: str, since: float = -math.inf) -> T | None:
        """Return the answer for `key`, None if there is none or only one that is no newer than `since` (monotonic)."""
        entry = self._answers.get(key)
        if entry is None:
            return None
        answer, born, _ = entry
        if self.lifetime is not None and time.monotonic() - born >= self.lifetime:
            self.pop(key)
            return None
        if born <= since:
            return None
        self._answers.move_to_end(key)
        return answer

    def put(self, key: str, answer: T, born: float) -> None:
        """Remember what was true at `born` (monotonic), forgetting others to make room."""
        self.pop(key)
        weight = self._weigh(answer)
        if weight > self._max_weight:
            return
        while self._weight + weight > self._max_weight and self._answers:
            self.pop(next(iter(self._answers)))
        entry = answer, born, weight
        # No call stands between the two lines, so that no interrupt leaves a weight without its answer.
        self._answers[key] = entry
        self._weight += weight

    def pop(self, key: str) -> T | None:
        """Forget `key` and return its answer, however old."""
        entry = self._answers.get(key)
        if entry is None:
            return None
        answer, _, weight = entry
        self._weight -= weight
        del self._answers[key]
        return answer

    def peek(self, key: str) -> T | None:
        """Return the answer for `key`, however old, without using it."""
        entry = self._answers.get(key)
        return None if entry is None else entry[0]

    def forget_tree(self, path: str) -> None:
        """Forget what stands at or below a path."""
        if not path:
            self.clear()
            return
        for key in [key for key in self._answers if key == path or k.is_below(key, path)]:
            self.pop(key)

    def clear(self) -> None:
        """Forget everything."""
        self._answers.clear()
        self._weight = 0

    def recount(self) -> None:
        """Bring the weight in line with what is held: a fork may have copied it half done."""
        self._weight = sum(weight for _, _, weight in self._answers.values())
