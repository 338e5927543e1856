"""Decompression under a cap: a chunk of 1 KB may claim 4 GB, and is refused before that is allocated."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Any

from zarrstore.metadata.crc import crc32c

__all__ = ["check_crc32c", "decode_step"]

_ZSTD_MAGIC = 0xFD2FB528
_ZSTD_SKIPPABLE = 0x184D2A50
_ZSTD_BLOCK = 128 * 1024
# A frame without a stated size may decode to this much, in bytes, even where less is expected.
_ZSTD_SLACK = 16 << 20
# xz -9 needs 65 MiB for its dictionary.
_LZMA_MEMORY = 256 << 20


def decode_step(config: dict[str, Any], data: Any, limit: int, strict: bool = False) -> Any:
    """Undo one codec, if what comes out has at most `limit` bytes.

    Parameters
    ----------
    config : dict
        The codec's configuration.
    data : buffer
        What the codec wrote.
    limit : int, bytes
        Most that may come out.
    strict : bool, default False
        Refuse bytes behind the end of a compressed stream, which Zarr overlooks.

    Returns
    -------
    buffer or numpy.ndarray

    Raises
    ------
    ValueError
        More would come out, or the data is truncated. The codec's own errors pass through.

    Notes
    -----
    zlib, gzip, bz2 and lzma stop at the limit; blosc, lz4 and zstd are asked for their size first. Codecs of third
    parties are trusted, and what they give is measured afterwards.

    Examples
    --------
    >>> decode_step({"id": "zlib", "level": 1}, zlib.compress(bytes(10**6)), 1000)
    Traceback (most recent call last):
    ValueError: zlib would decode to more than 1,000 bytes
    """
    name = config["id"]
    stream = _STREAMS.get(name)
    if stream is not None:
        return _read(name, stream(config), bytes(data), limit, strict)
    if name == "crc32c" and config.get("location") == "end":
        return check_crc32c(bytes(data))
    claim = _CLAIMS.get(name)
    if claim is not None:
        raw = memoryview(data).cast("B")
        claimed = claim(raw)
        allowed = max(limit, _ZSTD_SLACK) if name == "zstd" else limit
        if claimed > allowed:
            raise ValueError(f"{name} would decode to {claimed:,} bytes, and {limit:,} are possible here")
    import numcodecs

    decoded = numcodecs.get_codec(dict(config)).decode(data)
    nbytes = getattr(decoded, "nbytes", None)
    if nbytes is None:
        nbytes = len(decoded)
    if nbytes > limit:
        raise ValueError(f"{name} decodes to {nbytes:,} bytes, and {limit:,} are possible here")
    return decoded


def _read(name: str, begin: Callable[[], Any], data: bytes, limit: int, strict: bool) -> bytes:
    """Read a stream, and those appended to it, up to `limit` bytes."""
    parts = []
    room = limit
    while True:
        decoder = begin()
        while True:
            part = decoder.decompress(data, room + 1)
            room -= len(part)
            if room < 0:
                raise ValueError(f"{name} would decode to more than {limit:,} bytes")
            parts.append(part)
            if decoder.eof:
                break
            data = getattr(decoder, "unconsumed_tail", b"")
            if not part and not data:
                raise ValueError(f"{name} data is truncated")
        # gzip and bz2 files may be several, one after the other; zero bytes at the end are padding. zlib has one.
        data = decoder.unused_data
        if strict and data and (not any(data) or name in ("zlib", "lzma")):
            raise ValueError(f"{len(data):,} bytes lie behind the end of the {name} data")
        if not any(data) or name in ("zlib", "lzma"):
            return b"".join(parts)


def check_crc32c(data: bytes) -> bytes:
    """Return data without the crc32c sum (RFC 3720, little-endian) at its end.

    Raises
    ------
    ValueError
        The sum is another, or there is no room for one.

    Examples
    --------
    >>> check_crc32c(b"123456789" + 0xE3069283.to_bytes(4, "little"))
    b'123456789'
    """
    if len(data) < 4:
        raise ValueError(f"it has {len(data)} bytes, a crc32c sum alone has 4")
    crc = crc32c(data[:-4])
    found = int.from_bytes(data[-4:], "little")
    if found != crc:
        raise ValueError(f"its crc32c sum is {crc:#010x}, and {found:#010x} is written")
    return data[:-4]


def _lzma(config: dict[str, Any]) -> Callable[[], Any]:
    format_, filters = config.get("format", lzma.FORMAT_XZ), config.get("filters")
    if format_ == lzma.FORMAT_RAW:
        return lambda: lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters)
    # A container states its filters, and Python refuses them as an argument for reading it, so they are left out
    # (numcodecs passes them, and cannot read what it wrote).
    return lambda: lzma.LZMADecompressor(format_, memlimit=_LZMA_MEMORY)


_STREAMS: dict[str, Callable[[dict[str, Any]], Callable[[], Any]]] = {
    "zlib": lambda config: zlib.decompressobj,
    "gzip": lambda config: lambda: zlib.decompressobj(wbits=31),
    "bz2": lambda config: bz2.BZ2Decompressor,
    "lzma": _lzma,
}


def _claim_blosc(data: memoryview) -> int:
    if len(data) < 16:
        raise ValueError(f"blosc data has {len(data)} bytes, its header alone has 16")
    stated = int.from_bytes(data[12:16], "little")
    if stated != len(data):
        raise ValueError(f"blosc data has {len(data):,} bytes, its header says {stated:,}")
    return int.from_bytes(data[4:8], "little")


def _claim_lz4(data: memoryview) -> int:
    if len(data) < 4:
        raise ValueError(f"lz4 data has {len(data)} bytes, its header alone has 4")
    return int.from_bytes(data[:4], "little")


def _claim_zstd(data: memoryview) -> int:
    """Add up what the frames say, or what their blocks can hold at most where a frame does not say (RFC 8878, 3.1)."""
    total = at = 0
    while at < len(data):
        magic = int.from_bytes(data[at : at + 4], "little")
        if magic & 0xFFFFFFF0 == _ZSTD_SKIPPABLE:
            at += 8 + int.from_bytes(data[at + 4 : at + 8], "little")
            continue
        if magic != _ZSTD_MAGIC or at + 5 > len(data):
            raise ValueError("zstd data has no frame where one is expected")
        descriptor = data[at + 4]
        single, checksum = descriptor >> 5 & 1, descriptor >> 2 & 1
        dictionary = (0, 1, 2, 4)[descriptor & 3]
        width = (1 if single else 0, 2, 4, 8)[descriptor >> 6]
        at += 5 + (0 if single else 1) + dictionary
        content_size = int.from_bytes(data[at : at + width], "little") + (256 if width == 2 else 0)
        at += width
        most = 0
        last = 0
        while not last:
            if at + 3 > len(data):
                raise ValueError("zstd data is truncated")
            header = int.from_bytes(data[at : at + 3], "little")
            last, kind, size = header & 1, header >> 1 & 3, header >> 3
            # Raw, run of one byte, compressed.
            most += size if kind < 2 else _ZSTD_BLOCK
            at += 3 + (1 if kind == 1 else size)
        at += 4 * checksum
        total += content_size if width else most
    return total


_CLAIMS: dict[str, Callable[[memoryview], int]] = {
    "blosc": _claim_blosc,
    "lz4": _claim_lz4,
    "zstd": _claim_zstd,
}
