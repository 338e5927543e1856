"""Version 1 documents, and what they mean in version 2."""

from __future__ import annotations

from zarrstore.metadata import documents, v2

__all__ = ["array_to_v2", "attrs_to_v2"]


def array_to_v2(data: bytes, key: str = documents.META) -> tuple[v2.ArrayMeta, list[str]]:
    """Return the version 2 description under which the chunks of a version 1 array, untouched, decode right.

    Parameters
    ----------
    data : bytes
        The version 1 document ``meta``.
    key : str
        Its full key, for the error.

    Returns
    -------
    meta : v2.ArrayMeta
        `v2.encode_array` gives the ``.zarray``.
    notes : list of str
        What differs from a plain transcription and why, and what no codec of today decodes; empty as a rule.

    Raises
    ------
    MetadataError
        It is no version 1 array.
    """
    raise NotImplementedError


def attrs_to_v2(data: bytes | None, key: str = documents.ATTRS) -> bytes:
    """Return the bytes of ``.zattrs`` for a version 1 ``attrs``, which is copied as it is once it proved to be an object.

    A missing document (None) becomes an empty object.
    """
    raise NotImplementedError
