"""Names in order, kept in blocks: one name more or less costs microseconds, whatever the number of all."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from zarrstore import keys as k

__all__ = ["SortedNames"]

#: Names in a block: what one more or less may move.
_BLOCK = 1024


class SortedNames:
    """The names of an archive, sorted.

    Parameters
    ----------
    names : iterable of str
        Each once, in any order.

    Notes
    -----
    Cost: sorting, once; a look-up takes two searches by bisection. Not safe for threads that change it.
    """

    def __init__(self, names: Iterable[str]) -> None:
        ordered = sorted(names)
        self._blocks = [ordered[at : at + _BLOCK] for at in range(0, len(ordered), _BLOCK)]
        self._firsts = [block[0] for block in self._blocks]

    def _block_of(self, name: str) -> int:
        """Return the number of the block in which `name` is, or would be."""
        at = bisect_left(self._firsts, name)
        return at if at < len(self._firsts) and self._firsts[at] == name else max(0, at - 1)

    def put(self, name: str, there: bool) -> None:
        """Add a name or take it away; nothing happens if that is so already."""
        if not self._blocks:
            if there:
                self._blocks, self._firsts = [[name]], [name]
            return
        number = self._block_of(name)
        block = self._blocks[number]
        at = bisect_left(block, name)
        if (at < len(block) and block[at] == name) == there:
            return
        if there:
            block.insert(at, name)
            if len(block) > 2 * _BLOCK:
                self._blocks[number : number + 1] = block[:_BLOCK], block[_BLOCK:]
                self._firsts.insert(number + 1, block[_BLOCK])
        else:
            del block[at]
            if not block:
                del self._blocks[number], self._firsts[number]
                return
        self._firsts[number] = self._blocks[number][0]

    def below(self, path: str) -> list[str]:
        """Return the names below a path; ``""`` is the root."""
        if not path:
            return [name for block in self._blocks for name in block]
        low, high = k.prefix(path), k.beyond(path)
        first, last = self._block_of(low), self._block_of(high)
        names = [name for block in self._blocks[first : last + 1] for name in block]
        return names[bisect_left(names, low) : bisect_left(names, high)]

    def children(self, path: str) -> set[str]:
        """Return the names of the children of a path. Cost: a few steps a child, whatever is below it."""
        found: set[str] = set()
        blocks, low = self._blocks, k.prefix(path)
        number = self._block_of(low)
        while number < len(blocks):
            block = blocks[number]
            at = bisect_left(block, low)
            while at < len(block):
                child = k.child(block[at], path)
                if child is None:
                    return found
                found.add(child)
                whole = k.join(path, child)
                if block[at] == whole:
                    at += 1
                else:  # a directory: whatever else is in it is passed over
                    low = k.beyond(whole)
                    at = bisect_left(block, low, at + 1)
            number = max(number + 1, self._block_of(low))
        return found
