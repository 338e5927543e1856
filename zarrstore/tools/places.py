"""Which chunks of a grid are there, in a bit each."""

from __future__ import annotations

__all__ = ["Places"]

#: Bits in a page, as a power of two. Pages exist only where chunks are: a grid may claim 10**18 of them.
_PAGE = 12


class Places:
    """A set of positions in a grid.

    Parameters
    ----------
    grid : tuple of int
        Number of chunks along each axis.

    Notes
    -----
    Memory: about one bit a chunk of a dense array, whatever the length of its keys.

    Examples
    --------
    >>> places = Places((2, 3))
    >>> places.add((1, 2))
    >>> places.has((1, 2)), places.has((0, 0)), places.count
    (True, False, 1)
    """

    def __init__(self, grid: tuple[int, ...]) -> None:
        self._grid = grid
        self._pages: dict[int, bytearray] = {}
        self.count = 0

    def add(self, position: tuple[int, ...]) -> None:
        """Add a position that was not added before; one outside of the grid is counted only."""
        self.count += 1
        number = self._number(position)
        if number is None:
            return
        page = self._pages.setdefault(number >> _PAGE, bytearray(1 << (_PAGE - 3)))
        at = number & ((1 << _PAGE) - 1)
        page[at >> 3] |= 1 << (at & 7)

    def has(self, position: tuple[int, ...]) -> bool:
        """Tell whether a position was added."""
        number = self._number(position)
        page = None if number is None else self._pages.get(number >> _PAGE)
        if number is None or page is None:
            return False
        at = number & ((1 << _PAGE) - 1)
        return bool(page[at >> 3] & (1 << (at & 7)))

    def _number(self, position: tuple[int, ...]) -> int | None:
        number = 0
        for at, length in zip(position, self._grid, strict=True):
            if at >= length:
                return None
            number = number * length + at
        return number
