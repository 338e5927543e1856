"""The chunk grid of an array as a map: what is written, missing and damaged, and how many bytes each chunk takes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from zarrstore import keys as k
from zarrstore.adapt import as_store
from zarrstore.base import Store
from zarrstore.metadata import chunking, v2
from zarrstore.metadata.chunkkeys import ChunkKeys, chunk_keys_of_v3
from zarrstore.nodes import Node, node_at
from zarrstore.shown import clip, human_bytes
from zarrstore.spelling import chunk_keys_of
from zarrstore.targets import Target, opens
from zarrstore.tools.findings import VerifyReport
from zarrstore.tools.grid import regular_grid
from zarrstore.tools.holding import is_document
from zarrstore.tools.listing import listing_of, present
from zarrstore.tools.nearby import absent
from zarrstore.tools.verify import verify

__all__ = ["ChunkMap", "chunk_map"]

#: Chunks of the largest grid of which a map is made.
_MOST = 4_000_000
#: Cells of a row and rows of the text.
_COLUMNS, _ROWS = 100, 40
_SHADES = "░▒▓█"


@dataclass(frozen=True, repr=False)
class ChunkMap:
    """What is known of each chunk of an array.

    Parameters
    ----------
    path : str
        Of the array.
    grid : tuple of int
        Chunks along each axis.
    sizes : mapping of tuple to int
        Position of each chunk that is written, and its bytes (-1 where the size cannot be known).
    damaged : frozenset of tuple
        Positions of chunks that cannot be decoded.
    """

    path: str
    grid: tuple[int, ...]
    sizes: dict[tuple[int, ...], int]
    damaged: frozenset[tuple[int, ...]] = frozenset()

    @property
    def title(self) -> str:
        """What the map shows, in one line."""
        total = math.prod(self.grid)
        bad = f", {len(self.damaged):,} damaged" if self.damaged else ""
        written, nbytes = len(self.sizes), sum(max(0, size) for size in self.sizes.values())
        counts = f"{written:,} of {total:,} chunks written{bad}, {total - written:,} missing"
        return f"{self.path or '/'}: {counts}, {human_bytes(nbytes)}"

    def rows(self, columns: int = _COLUMNS, rows: int = _ROWS) -> list[list[float]]:
        """Return a picture of numbers: the last axis across, all others down, at most so many cells.

        Returns
        -------
        list of list of float
            For each cell: -1 if a chunk of it is damaged, 0 if none is written, else the mean bytes of its chunks as a
            share of the largest chunk, above 0 and at most 1.
        """
        width = self.grid[-1] if self.grid else 1
        height = math.prod(self.grid[:-1])
        across, down = -(-width // columns) or 1, -(-height // rows) or 1
        largest = max([*self.sizes.values(), 1])
        sums = [[0.0] * -(-width // across) for _ in range(-(-height // down))]
        for position, size in self.sizes.items():
            row, column = self._cell(position)
            sums[row // down][column // across] += max(size, 1) / largest / (across * down)
        for position in self.damaged:
            row, column = self._cell(position)
            sums[row // down][column // across] = -1.0
        return [[max(-1.0, min(1.0, value)) if value >= 0 else -1.0 for value in line] for line in sums]

    def _cell(self, position: tuple[int, ...]) -> tuple[int, int]:
        row = 0
        for i, n in zip(position[:-1], self.grid[:-1], strict=True):
            row = row * n + i
        return row, position[-1] if position else 0

    def __str__(self) -> str:
        legend = f"· missing  {_SHADES} bytes of a chunk, little to much{'  x damaged' if self.damaged else ''}"
        return "\n".join([self.title, *("".join(map(_sign, row)) for row in self.rows()), legend])

    def __repr__(self) -> str:
        return clip(str(self))


def _sign(share: float) -> str:
    if share < 0:
        return "x"
    return "·" if share == 0 else _SHADES[min(len(_SHADES) - 1, int(share * len(_SHADES)))]


@opens(store="r")
def chunk_map(
    store: Target, path: object = "", *, decode: bool = False, report: VerifyReport | None = None
) -> ChunkMap:
    """Return which chunks of an array are written, and how many bytes each takes.

    Parameters
    ----------
    store : Mapping of str to bytes
        Any mapping, path or URL.
    path : str
        Where the array is.
    decode : bool, default False
        Read and decode every chunk too, to find those that are damaged.
    report : VerifyReport, optional
        Of `verify`, made before: chunks that it names are damaged, and none is decoded.

    Raises
    ------
    KeyError
        No array is at `path`.
    ValueError
        The grid has more than four million chunks.

    Notes
    -----
    Cost: one listing of the array; with `decode`, as `verify`.

    Examples
    --------
    >>> from zarrstore import init_array
    >>> store = {}
    >>> init_array(store, shape=(2, 6), chunks=(1, 2), dtype="|u1", compressor=None, path="a")
    >>> store["a/0.1"] = b"12"
    >>> print(chunk_map(store, "a"))
    a: 1 of 6 chunks written, 5 missing, 2 B
    ·█·
    ···
    · missing  ░▒▓█ bytes of a chunk, little to much
    """
    adapted = as_store(store)
    at = k.normalize_path(path)
    node = node_at(adapted, at)
    if node is None or node.kind != "array":
        raise absent(adapted, at, "array")
    if node.error is not None:
        raise node.error
    rule, grid = _layout(adapted, node)
    if math.prod(grid) > _MOST:
        raise ValueError(f"array {at!r} has {math.prod(grid):,} chunks, and a map shows {_MOST:,} at most")
    sizes = _sizes(adapted, at, rule, grid)
    if report is None and decode:
        report = verify(adapted, at)
    places = (rule.coords(problem.key, at) for problem in (() if report is None else report.problems))
    return ChunkMap(at, grid, sizes, frozenset(place for place in places if place is not None and place in sizes))


def _sizes(store: Store, path: str, rule: ChunkKeys, grid: tuple[int, ...]) -> dict[tuple[int, ...], int]:
    """Return the sizes of the chunks that are there, by their places."""
    sizes: dict[tuple[int, ...], int] = {}
    for entry in present(store, listing_of(store, path, details=True)):
        place = None if is_document(entry.key) else rule.coords(entry.key, path)
        if place is not None and all(i < n for i, n in zip(place, grid, strict=True)):
            sizes[place] = entry.nbytes
    return sizes


def _layout(store: Store, node: Node) -> tuple[ChunkKeys, tuple[int, ...]]:
    if node.version == 3:
        return chunk_keys_of_v3(node.document, node.key), chunking.grid_shape(*regular_grid(node.document, node.key))
    meta = v2.check_array(node.document, node.key)
    return chunk_keys_of(store, node.path, meta), meta.grid_shape
