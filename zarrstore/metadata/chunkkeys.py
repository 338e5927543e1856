"""How an array names its chunks: between positions in the grid and keys, in version 2 and in version 3."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from zarrstore import keys as k
from zarrstore.chunknames import chunk_coords, chunk_name
from zarrstore.errors import MetadataError
from zarrstore.metadata import documents

__all__ = ["ChunkKeys", "chunk_keys_of_v3"]


class ChunkKeys(NamedTuple):
    """The rule by which one array names its chunks.

    Parameters
    ----------
    encoding : {'v2', 'default'}
        Version 2's names (``0.1``, ``0/1``), or version 3's own (``c/0/1``, ``c.0.1``).
    separator : {'.', '/'}
        What stands between the numbers.
    ndim : int
        Number of axes.

    Examples
    --------
    >>> rule = ChunkKeys("default", "/", 2)
    >>> rule.key("foo", (0, 1)), rule.coords("foo/c/0/1", "foo"), rule.coords("foo/c/00/1", "foo")
    ('foo/c/0/1', (0, 1), None)
    >>> rule = ChunkKeys("v2", ".", 0)
    >>> rule.key("foo", ()), rule.coords("foo/0", "foo")
    ('foo/0', ())
    """

    encoding: str
    separator: str
    ndim: int

    def name(self, coords: Iterable[int]) -> str:
        """Return the name of a chunk below its array."""
        if self.encoding == "v2":
            return chunk_name(coords, self.separator)
        position = tuple(coords)
        return f"c{self.separator}{chunk_name(position, self.separator)}" if position else "c"

    def key(self, array: str, coords: Iterable[int]) -> str:
        """Return the key of a chunk of the array at a path."""
        return k.join(array, self.name(coords))

    def coords(self, key: str, array: str) -> tuple[int, ...] | None:
        """Return the position whose key this is, None if it is the key of no position (as ``00.1``).

        A position outside the grid is a position too.
        """
        position = self.loose_coords(key, array)
        return position if position is not None and self.key(array, position) == key else None

    def loose_coords(self, key: str, array: str) -> tuple[int, ...] | None:
        """Return the position that a key names in any spelling of its numbers, leading zeros included, else None."""
        if not k.is_below(key, array):
            return None
        if self.encoding == "v2":
            position = chunk_coords(key, array, self.separator)
        else:
            position = _default_coords(k.replace_root(key, array, ""), self.separator)
        if position == (0,) and not self.ndim and self.encoding == "v2":
            return ()
        return position if position is not None and len(position) == self.ndim else None

    def respelled(self, separator: str) -> ChunkKeys:
        """Return the same rule with another separator."""
        return self._replace(separator=separator)


def _default_coords(name: str, separator: str) -> tuple[int, ...] | None:
    if name == "c":
        return ()
    if separator == "/":
        return chunk_coords(name, "c", "/")
    return chunk_coords(k.join("c", name[2:]), "c", ".") if name[:2] == "c." else None


def chunk_keys_of_v3(document: Mapping[str, Any], key: str = documents.ZARR_JSON) -> ChunkKeys:
    """Return how a version 3 array names its chunks.

    Parameters
    ----------
    document : mapping
        A parsed ``zarr.json``.
    key : str
        Its full key, for the error.

    Raises
    ------
    MetadataError
        The document names another rule, or has no list ``shape``.

    Examples
    --------
    >>> chunk_keys_of_v3({"shape": [3], "chunk_key_encoding": {"name": "default"}})
    ChunkKeys(encoding='default', separator='/', ndim=1)
    """
    shape = document.get("shape")
    if not isinstance(shape, list):
        raise MetadataError(key, "shape", "is missing" if "shape" not in document else "is no list")
    encoding = document.get("chunk_key_encoding")
    if isinstance(encoding, str):
        encoding = {"name": encoding}
    if isinstance(encoding, dict) and encoding.get("name") in ("default", "v2"):
        name = str(encoding["name"])
        configuration = encoding.get("configuration", {})
        if isinstance(configuration, dict):
            separator = configuration.get("separator", "/" if name == "default" else ".")
            if separator in (".", "/"):
                return ChunkKeys(name, separator, len(shape))
    raise MetadataError(key, "chunk_key_encoding", f"is {encoding!r}, and 'default' or 'v2' is expected")
