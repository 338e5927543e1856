"""Random healthy hierarchies: versions 2, 3 and both, flat and nested, consolidated or not, with missing chunks."""

from __future__ import annotations

import random
from typing import Any

import numcodecs
import numpy as np

from zarrstore import consolidate_metadata, init_array, init_group, migrate_2to3
from zarrstore.metadata import chunking, v2
from zarrstore.metadata.chunk import encode_chunk

DTYPES = ("i1", "<u2", ">i4", "<f8", ">f4", "b1", "<c8", "S3", "<U4", "M8[s]", "<i8")


def compressor(rng: random.Random) -> Any:
    """Return a codec."""
    return rng.choice(
        [None, "default", numcodecs.Zlib(1), numcodecs.Zstd(1), numcodecs.BZ2(1), numcodecs.GZip(1), numcodecs.LZ4()]
    )


def random_hierarchy(rng: random.Random, *, representable: bool = True, undeclared: bool = False) -> dict[str, bytes]:
    """Return a hierarchy of version 2, or with version 3 beside it or in its place.

    Parameters
    ----------
    rng : random.Random
        What decides.
    representable : bool, default True
        Whether version 3 has a document for every array.
    undeclared : bool, default False
        Whether nested arrays say so only sometimes, as those of old releases.
    """
    store: dict[str, bytes] = {}
    init_group(store)
    if rng.random() < 0.5:
        store[".zattrs"] = b'{"title": "t"}'
    for n in range(rng.randint(1, 4)):
        path = rng.choice(["", "g/", "g/h/"]) + f"array{n}"
        rank = rng.randint(0, 3)
        nested = rng.choice([None, ".", "/"])
        init_array(
            store,
            path=path,
            shape=tuple(rng.randint(0 if rank > 1 else 1, 7) for _ in range(rank)),
            chunks=tuple(rng.randint(1, 5) for _ in range(rank)) or True,
            dtype=rng.choice(DTYPES),
            compressor=compressor(rng),
            fill_value=rng.choice([None, 0]) if rank else 0,
            order=rng.choice("CF"),
            filters=rng.choice([None, None, [numcodecs.CRC32()]]),
            dimension_separator=nested,
        )
        _write_chunks(store, path, rng)
        if rng.random() < 0.3:
            names = ", ".join(f'"d{axis}"' for axis in range(rank))
            store[f"{path}/.zattrs"] = f'{{"_ARRAY_DIMENSIONS": [{names}]}}'.encode()
        if undeclared and nested == "/" and rng.random() < 0.7:
            store[f"{path}/.zarray"] = store[f"{path}/.zarray"].replace(b'    "dimension_separator": "/",\n', b"")
    if not representable and rng.random() < 0.5:
        init_array(store, path="g/odd", shape=3, dtype=object, object_codec=numcodecs.JSON(), fill_value=None)
    if not undeclared and rng.random() < 0.5:
        consolidate_metadata(store)
    version = rng.choice([2, 2, 3, "both"]) if representable and not undeclared else 2
    if version != 2:
        migrate_2to3(store, remove_v2=version == 3)
    return store


def _write_chunks(store: dict[str, bytes], path: str, rng: random.Random) -> None:
    meta = v2.decode_array(store[f"{path}/.zarray"])
    values = np.random.default_rng(rng.randrange(2**32))
    for coords in chunking.chunk_grid(meta.shape, meta.chunks):
        if meta.fill_value is not None and rng.random() < 0.2:
            continue
        items = values.integers(0, 2 if meta.dtype == "|b1" else 9, meta.chunks)
        name = meta.separator.join(map(str, coords)) or "0"
        store[f"{path}/{name}"] = encode_chunk(items.astype(meta.numpy_dtype), meta)
