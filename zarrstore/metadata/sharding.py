"""Chunks packed into shards of version 3: shapes, documents and indices. Nothing here decodes a chunk."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

from zarrstore.errors import MetadataError
from zarrstore.metadata.crc import crc32c

__all__ = ["ABSENT", "Sharding", "chosen_shape", "index_nbytes", "pack_index", "sharded_document"]

#: Offset and size of a chunk that is not in its shard.
ABSENT = (1 << 64) - 1
_CRC_NBYTES = 4
_INDEX_CODECS = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]


class Sharding(NamedTuple):
    """How the chunks of one array lie in shards.

    Parameters
    ----------
    shape : tuple of int
        Of the array, in items.
    chunks : tuple of int
        Of a chunk, in items.
    shards : tuple of int
        Of a shard, in items; a multiple of `chunks` along each axis.

    Examples
    --------
    >>> sharding = Sharding((10, 10), (2, 5), (6, 10))
    >>> sharding.per_shard, sharding.shard_of((4, 1)), sharding.place_of((4, 1)), sharding.n_chunks
    ((3, 2), (1, 0), 3, 6)
    """

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    shards: tuple[int, ...]

    @property
    def per_shard(self) -> tuple[int, ...]:
        """Number of chunks of a shard along each axis."""
        return tuple(shard // chunk for shard, chunk in zip(self.shards, self.chunks, strict=True))

    @property
    def n_chunks(self) -> int:
        """Number of chunks of a shard."""
        return math.prod(self.per_shard)

    def shard_of(self, coords: Sequence[int]) -> tuple[int, ...]:
        """Return the position of the shard that holds the chunk at `coords`."""
        return tuple(at // count for at, count in zip(coords, self.per_shard, strict=True))

    def place_of(self, coords: Sequence[int]) -> int:
        """Return the number of a chunk in the index of its shard: in C order."""
        place = 0
        for at, count in zip(coords, self.per_shard, strict=True):
            place = place * count + at % count
        return place

    def chunks_of(self, shard: Sequence[int]) -> Iterator[tuple[int, ...]]:
        """Yield the positions of the chunks of a shard in the order of its index, those outside the array too."""
        axes = (range(at * count, (at + 1) * count) for at, count in zip(shard, self.per_shard, strict=True))
        return product(*axes)


def chosen_shape(shape: tuple[int, ...], chunks: tuple[int, ...], chunk_nbytes: int, target: int) -> tuple[int, ...]:
    """Return the shape of shards that hold about `target` bytes, as near to a cube of chunks as the array lets them.

    Parameters
    ----------
    shape, chunks : tuple of int
        Of the array and of a chunk, in items.
    chunk_nbytes : int, bytes
        What a chunk takes as it is stored.
    target : int, bytes
        What a shard is to take at the most, unless one chunk takes more.

    Examples
    --------
    >>> chosen_shape((1000, 1000), (10, 10), 200, 200 * 64)
    (80, 80)
    >>> chosen_shape((30, 1000), (10, 10), 200, 200 * 64)
    (30, 210)
    """
    grid = [max(1, -(-size // chunk)) for size, chunk in zip(shape, chunks, strict=True)]
    counts = [1] * len(grid)
    left = max(1, target // max(1, chunk_nbytes))
    # The shortest axes first: what they cannot use, the others get.
    for n, axis in enumerate(sorted(range(len(grid)), key=lambda axis: grid[axis])):
        share = int(left ** (1 / (len(grid) - n)) + 1e-9)
        counts[axis] = max(1, min(grid[axis], share))
        left = max(1, left // counts[axis])
    return tuple(count * chunk for count, chunk in zip(counts, chunks, strict=True))


def sharded_document(document: Mapping[str, Any], shards: tuple[int, ...], key: str = "zarr.json") -> dict[str, Any]:
    """Return the document of an array of version 3 whose chunks are kept, as they are, in shards.

    Parameters
    ----------
    document : mapping
        The ``zarr.json`` of the array without shards.
    shards : tuple of int
        Shape of a shard, in items.
    key : str
        For the error.

    Raises
    ------
    MetadataError
        A shard is no multiple of a chunk along an axis.
    """
    chunks = document["chunk_grid"]["configuration"]["chunk_shape"]
    if len(shards) != len(chunks) or any(
        shard < 1 or shard % chunk for shard, chunk in zip(shards, chunks, strict=True)
    ):
        raise MetadataError(
            key, None, f"cannot have shards of {shards}: each length is a multiple of a chunk's {tuple(chunks)}"
        )
    codec = {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": list(chunks),
            "codecs": document["codecs"],
            "index_codecs": _INDEX_CODECS,
            "index_location": "end",
        },
    }
    return {
        **document,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(shards)}},
        "codecs": [codec],
    }


def index_nbytes(n_chunks: int) -> int:
    """Return the size of the index of a shard in bytes.

    Examples
    --------
    >>> index_nbytes(4)
    68
    """
    return 16 * n_chunks + _CRC_NBYTES


def pack_index(sizes: Sequence[int | None]) -> bytes:
    """Return the index of a shard whose chunks follow one another from its start.

    Parameters
    ----------
    sizes : sequence of int or None, bytes
        Of the chunks, in C order of their positions; None where there is none.

    Examples
    --------
    >>> struct.unpack("<4QI", pack_index([3, None]))[:2]
    (0, 3)
    """
    numbers: list[int] = []
    offset = 0
    for size in sizes:
        numbers += (ABSENT, ABSENT) if size is None else (offset, size)
        offset += size or 0
    data = struct.pack(f"<{len(numbers)}Q", *numbers)
    return data + struct.pack("<I", crc32c(data))
