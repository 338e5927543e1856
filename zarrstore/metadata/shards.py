"""Shards of version 3: where the inner chunks lie, and what is wrong with a shard."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from zarrstore.errors import MetadataError
from zarrstore.metadata import bounded, chunking, documents, v2, v3, v3types
from zarrstore.metadata.chunk import decode_chunk

__all__ = ["ShardLayout", "read_index", "shard_layout", "shard_problems"]

#: Offset and size of an inner chunk that was never written.
_EMPTY = (1 << 64) - 1


@dataclass(frozen=True)
class ShardLayout:
    """How the shards of an array are built.

    Parameters
    ----------
    inner : v2.ArrayMeta
        A shard as an array of its own: its shape, its inner chunks and their codecs.
    index_endian : {'little', 'big'}
        Byte order of the index.
    index_checksum : bool
        Whether a crc32c sum follows the index.
    index_location : {'start', 'end'}
        Where the index lies.
    """

    inner: v2.ArrayMeta
    index_endian: str
    index_checksum: bool
    index_location: str

    @property
    def index_nbytes(self) -> int:
        """Size of the index with its checksum, in bytes."""
        return 16 * self.inner.n_chunks + (4 if self.index_checksum else 0)


def shard_layout(document: Mapping[str, Any], key: str = documents.ZARR_JSON) -> ShardLayout | None:
    """Return how the shards of a version 3 array are built, None if its chunks are no shards.

    Raises
    ------
    NotRepresentable
        The codecs of the inner chunks, or of the index, are none that can be decoded here.
    MetadataError
        The document is damaged.

    Examples
    --------
    >>> shard_layout({"codecs": [{"name": "bytes"}]}) is None
    True
    """
    codecs = document.get("codecs")
    names = _names(codecs)
    if "sharding_indexed" not in names:
        return None
    if names != ["sharding_indexed"]:
        raise v3types.NotRepresentable(f"shards among other codecs: {', '.join(map(str, names))}")
    assert isinstance(codecs, list)
    try:
        configuration = codecs[0]["configuration"]
        inner_codecs, index_codecs = configuration["codecs"], configuration["index_codecs"]
        inner_grid = {"name": "regular", "configuration": {"chunk_shape": configuration["chunk_shape"]}}
    except (KeyError, TypeError):
        raise MetadataError(key, "codecs", "has a sharding_indexed without its configuration") from None
    try:
        shard_shape = document["chunk_grid"]["configuration"]["chunk_shape"]
    except (KeyError, TypeError):
        raise v3types.NotRepresentable("shards on a grid that is not regular") from None
    translation = v3.array_v3_to_v2(
        {**document, "shape": shard_shape, "chunk_grid": inner_grid, "codecs": inner_codecs}, key
    )
    if translation.document is None:
        raise v3types.NotRepresentable(f"inner chunks: {'; '.join(translation.problems)}")
    endian, checksum = _index_codecs(index_codecs)
    location = configuration.get("index_location", "end")
    return ShardLayout(v2.check_array(translation.document, key), endian, checksum, location)


def _names(codecs: Any) -> list[Any]:
    return [codec.get("name") for codec in codecs if isinstance(codec, dict)] if isinstance(codecs, list) else []


def _index_codecs(codecs: Any) -> tuple[str, bool]:
    names = _names(codecs)
    if names not in (["bytes"], ["bytes", "crc32c"]) or len(codecs) != len(names):
        raise v3types.NotRepresentable(f"index with the codecs {', '.join(map(str, names)) or codecs!r}")
    configuration = codecs[0].get("configuration", {})
    endian = configuration.get("endian", "little") if isinstance(configuration, dict) else None
    if endian not in ("little", "big"):
        raise v3types.NotRepresentable(f"index with the byte order {endian!r}")
    return endian, len(names) == 2


def read_index(data: bytes, layout: ShardLayout) -> list[tuple[int, int] | None]:
    """Return offset and size of each inner chunk, in C order; None for those that were never written.

    Parameters
    ----------
    data : bytes
        The index, with its checksum if it has one.
    layout : ShardLayout
        From `shard_layout`.

    Raises
    ------
    ValueError
        The index has another size, or its checksum is wrong.
    """
    if len(data) != layout.index_nbytes:
        raise ValueError(f"it has {len(data):,} bytes, and {layout.index_nbytes:,} are expected")
    index = bounded.check_crc32c(data) if layout.index_checksum else data
    return [None if offset == nbytes == _EMPTY else (offset, nbytes) for _, offset, nbytes in _entries(index, layout)]


def shard_problems(
    data: bytes, layout: ShardLayout, *, max_nbytes: int | None = None, strict: bool = False
) -> list[str]:
    """Return everything that is wrong with a shard: its index, its checksum, and each inner chunk.

    Parameters
    ----------
    data : bytes
        The shard.
    layout : ShardLayout
        From `shard_layout`.
    max_nbytes : int or None, bytes
        Refuse an inner chunk that needs more than this when decoded.
    strict : bool, default False
        See `decode_chunk`.
    """
    size = layout.index_nbytes
    if len(data) < size:
        return [f"it has {len(data):,} bytes, its index alone has {size:,}"]
    at_start = layout.index_location == "start"
    index = data[:size] if at_start else data[len(data) - size :]
    if layout.index_checksum:
        try:
            index = bounded.check_crc32c(index)
        except ValueError as exc:
            return [f"its index: {exc}"]
    low, high = (size, len(data)) if at_start else (0, len(data) - size)
    problems = []
    occupied: list[tuple[int, int, tuple[int, ...]]] = []
    for coords, offset, nbytes in _entries(index, layout):
        if offset == nbytes == _EMPTY:
            continue
        if not low <= offset <= offset + nbytes <= high:
            problems.append(f"inner chunk {coords}: its place, {nbytes:,} bytes at {offset:,}, is not in the shard")
            continue
        occupied.append((offset, offset + nbytes, coords))
        try:
            decode_chunk(data[offset : offset + nbytes], layout.inner, max_nbytes=max_nbytes, strict=strict)
        except (ValueError, MemoryError) as exc:
            problems.append(f"inner chunk {coords}: {exc or 'not enough memory'}")
    occupied.sort()
    for (_, end, first), (start, _, second) in pairwise(occupied):
        if start < end:
            problems.append(f"inner chunks {first} and {second} lie on each other")
    return problems


def _entries(index: bytes, layout: ShardLayout) -> list[tuple[tuple[int, ...], int, int]]:
    order = "little" if layout.index_endian == "little" else "big"
    numbers = [int.from_bytes(index[at : at + 8], order) for at in range(0, 16 * layout.inner.n_chunks, 8)]  # type: ignore[arg-type]
    assert len(numbers) == 2 * math.prod(layout.inner.grid_shape)
    grid = chunking.chunk_grid(layout.inner.shape, layout.inner.chunks)
    return list(zip(grid, numbers[::2], numbers[1::2], strict=True))
