"""Readers of version 3 that are known to give wrong values for what the specification allows, and of which arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from zarrstore.errors import MetadataError
from zarrstore.metadata import dtypes

__all__ = ["misreadings"]


def misreadings(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each way in which a known reader takes an array of version 3 for other values.

    Parameters
    ----------
    document : mapping
        The ``zarr.json`` of an array.

    Notes
    -----
    Found by a run over what zarr 2.18.7 writes (``tests/metadata/test_v3_matrix.py``). Readers that refuse an array
    are not named. Source: zarrita 0.7.5, which reads the same arrays of version 2 wrongly as well.

    Examples
    --------
    >>> delta = {"name": "numcodecs.delta", "configuration": {"dtype": "<i4", "astype": "<i2"}}
    >>> list(misreadings({"codecs": [delta]}))
    ["zarrita reads wrong values: it ignores 'astype' of filter 'delta'"]
    >>> list(misreadings({"codecs": [], "fill_value": 2**64 - 1}))
    ['zarrita reads fill value 18446744073709551615 as another number: JavaScript rounds those above 2**53']
    """
    for codec in document.get("codecs", ()):
        if isinstance(codec, Mapping) and codec.get("name") == "numcodecs.delta" and _changes_type(codec):
            yield "zarrita reads wrong values: it ignores 'astype' of filter 'delta'"
    fill = document.get("fill_value")
    if type(fill) is int and int(float(fill)) != fill:
        yield f"zarrita reads fill value {fill} as another number: JavaScript rounds those above 2**53"


def _changes_type(codec: Mapping[str, Any]) -> bool:
    configuration = codec.get("configuration") or {}
    try:
        items = dtypes.decode_dtype(configuration["dtype"])
        differences = dtypes.decode_dtype(configuration.get("astype") or configuration["dtype"])
    except (KeyError, TypeError, ValueError, MetadataError):
        return False
    # Whole numbers of one size wrap round in the same way, with a sign and without.
    whole = items.kind in "iu" and differences.kind in "iu"
    return items.itemsize != differences.itemsize or not (whole or items.kind == differences.kind)
