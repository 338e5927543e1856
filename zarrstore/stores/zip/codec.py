"""The values in a zip archive: packed by one of its methods, and unpacked with a limit to their size."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Any

from zarrstore.errors import MissingDependencyError
from zarrstore.optional import require
from zarrstore.stores.zip import format as fmt

__all__ = ["METHODS", "crc32_function", "inflater", "pack", "unpack"]

METHODS = {fmt.STORED: "stored", fmt.DEFLATED: "deflated", fmt.BZIP2: "bzip2", fmt.LZMA: "lzma"}

_LZMA_DICTIONARY = 1 << 23


def crc32_function() -> Callable[..., int]:
    """Return the fastest CRC-32 there is: that of isal is several times as fast as zlib's."""
    try:
        return require("isal.isal_zlib", extra="speed", feature="a fast CRC-32").crc32  # type: ignore[no-any-return]
    except MissingDependencyError:
        return zlib.crc32


def pack(method: int, value: bytes) -> bytes:
    """Return `value` as the archive keeps it."""
    if method == fmt.STORED:
        return value
    if method == fmt.DEFLATED:
        packer: Any = zlib.compressobj(zlib.Z_DEFAULT_COMPRESSION, zlib.DEFLATED, -15)
        return bytes(packer.compress(value) + packer.flush())
    if method == fmt.BZIP2:
        import bz2

        return bz2.compress(value)
    import lzma

    packer = lzma.LZMACompressor(lzma.FORMAT_RAW, filters=[_lzma_filter(0x5D, _LZMA_DICTIONARY)])
    # Version of the LZMA SDK, length of the properties, the properties.
    head = struct.pack("<BBHBL", 9, 4, 5, 0x5D, _LZMA_DICTIONARY)
    return bytes(head + packer.compress(value) + packer.flush())


def unpack(method: int, packed: bytes, size: int) -> bytes:
    """Return the value, or raise ValueError with the reason; at most ``size + 1`` bytes are unpacked."""
    if method == fmt.STORED:
        if len(packed) != size:
            raise ValueError(f"it claims {size:,} bytes and has {len(packed):,}")
        return packed
    worker = inflater(method, packed[:9], size)
    if method == fmt.LZMA:
        packed = packed[9:]
    try:
        value: bytes = worker.decompress(packed, size + 1)
    except Exception as exc:  # zlib.error, OSError, LZMAError, EOFError, by library
        raise ValueError(f"its data cannot be unpacked: {exc}") from exc
    if len(value) != size:
        more = "more" if len(value) > size else f"{len(value):,}"
        raise ValueError(f"it claims {size:,} bytes and has {more}")
    return value


def inflater(method: int, head: bytes, size: int) -> Any:
    """Return an object with ``decompress(data, max_length)``, ``eof`` and ``unused_data``."""
    if method == fmt.DEFLATED:
        return zlib.decompressobj(-15)
    if method == fmt.BZIP2:
        import bz2

        return bz2.BZ2Decompressor()
    if method == fmt.LZMA:
        import lzma

        if len(head) < 9 or head[2:4] != b"\5\0":
            raise ValueError("its LZMA header is invalid")
        properties, dictionary = struct.unpack("<4xBL", head)
        # A larger dictionary than the value would only fill memory.
        dictionary = min(dictionary, max(size, 4096))
        try:
            return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[_lzma_filter(properties, dictionary)])
        except (lzma.LZMAError, ValueError) as exc:
            raise ValueError(f"its LZMA header is invalid: {exc}") from exc
    raise ValueError(f"it is packed by method {method}, which is not supported")


def _lzma_filter(properties: int, dictionary: int) -> dict[str, int]:
    import lzma

    return {
        "id": lzma.FILTER_LZMA1,
        "dict_size": dictionary,
        "lc": properties % 9,
        "lp": properties // 9 % 5,
        "pb": properties // 45,
    }
