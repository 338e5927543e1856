"""CRC-32C, the checksum of version 3: by google_crc32c where it is installed."""

from __future__ import annotations

from functools import cache

__all__ = ["crc32c"]


def crc32c(data: bytes) -> int:
    """Return the CRC-32C (RFC 3720) of data.

    Notes
    -----
    Cost: 0.1 ms a MB with google_crc32c (zarr 3 brings it), 100 ms a MB without.

    Examples
    --------
    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    try:
        import google_crc32c
    except ImportError:
        return _crc32c(data)
    return int(google_crc32c.value(data))


def _crc32c(data: bytes) -> int:
    table = _crc_table()
    crc = 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


@cache
def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return tuple(table)
