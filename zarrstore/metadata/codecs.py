"""Configurations of compressors and filters, as documents hold them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from zarrstore.metadata import documents

__all__ = ["DEFAULT_COMPRESSOR", "codec_config", "compressor_config", "filters_config"]

#: What ``compressor="default"`` stands for, known without importing numcodecs.
DEFAULT_COMPRESSOR: dict[str, Any] = {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0}


def codec_config(codec: Any, what: str) -> dict[str, Any]:
    """Return the configuration of a codec as a document holds it.

    Parameters
    ----------
    codec : object with get_config(), or mapping
        A numcodecs codec, any object like one, or a configuration with its ``id``.
    what : str
        The parameter, for the error.

    Raises
    ------
    ValueError
        It has no `get_config`, or the configuration has no ``id`` or cannot be represented in JSON.

    Examples
    --------
    >>> codec_config({"id": "zlib", "level": 1}, "compressor")
    {'id': 'zlib', 'level': 1}
    >>> codec_config("zlib", "compressor")
    Traceback (most recent call last):
    ValueError: compressor 'zlib' is no codec: pass an object with get_config(), or a dict such as {"id": "zlib"}
    """
    if isinstance(codec, Mapping):
        config = dict(codec)
    else:
        get_config = getattr(codec, "get_config", None)
        if get_config is None:
            raise ValueError(
                f'{what} {codec!r} is no codec: pass an object with get_config(), or a dict such as {{"id": "zlib"}}'
            )
        config = dict(get_config())
    if not isinstance(config.get("id"), str):
        raise ValueError(f'{what} {codec!r} has the configuration {config!r}, which lacks an "id"')
    try:
        # Through JSON and back: tuples and NumPy's numbers become what a reader will see.
        plain: dict[str, Any] = json.loads(documents.dumps(config))
    except (TypeError, ValueError) as exc:
        raise ValueError(
            f"{what} {codec!r} has the configuration {config!r}, which JSON cannot represent: {exc}"
        ) from None
    return plain


def compressor_config(compressor: Any) -> dict[str, Any] | None:
    """Return the ``compressor`` member: ``"default"`` is Blosc with lz4; None, ``"none"`` and anything empty is none.

    Examples
    --------
    >>> compressor_config("default")["cname"], compressor_config("none"), compressor_config([])
    ('lz4', None, None)
    """
    if isinstance(compressor, str) and compressor == "default":
        return dict(DEFAULT_COMPRESSOR)
    if not compressor or (isinstance(compressor, str) and compressor == "none"):
        return None
    return codec_config(compressor, "compressor")


def filters_config(filters: Iterable[Any] | None, object_codec: Any = None) -> list[dict[str, Any]] | None:
    """Return the ``filters`` member: the object codec first, None where there is nothing.

    Examples
    --------
    >>> filters_config([{"id": "shuffle", "elementsize": 4}], {"id": "vlen-utf8"})
    [{'id': 'vlen-utf8'}, {'elementsize': 4, 'id': 'shuffle'}]
    """
    configs = [codec_config(codec, "filter") for codec in filters or ()]
    if object_codec is not None:
        configs.insert(0, codec_config(object_codec, "object_codec"))
    return configs or None
