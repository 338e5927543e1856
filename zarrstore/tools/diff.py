"""What differs between two stores, by key and by byte."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from zarrstore import keys as k
from zarrstore.adapt import as_store

__all__ = ["Difference", "diff"]


@dataclass(frozen=True)
class Difference:
    """One key that is not the same on both sides.

    Parameters
    ----------
    key : str
        Relative to the two paths.
    kind : {'left', 'right', 'different'}
        Only there, or there with other bytes.

    Examples
    --------
    >>> str(Difference("a/0", "left"))
    '< a/0'
    """

    key: str
    kind: str

    def __str__(self) -> str:
        return f"{ {'left': '<', 'right': '>', 'different': '!'}[self.kind] } {self.key}"


def diff(
    left: Mapping[str, Any], right: Mapping[str, Any], left_path: object = "", right_path: object = ""
) -> Iterator[Difference]:
    """Yield every key that is only on one side, or holds other bytes on the other, in the order of the keys.

    Parameters
    ----------
    left, right : Mapping of str to bytes
        Any mappings that can be listed.
    left_path, right_path : str
        What is compared: the keys below the one with those below the other.

    Notes
    -----
    Cost: one listing of each side; values that both hold are read, in batches, and let go. Nothing is yielded for
    equal stores. Source: this package.

    Examples
    --------
    >>> [str(found) for found in diff({"a": b"1", "b": b"2"}, {"b": b"3", "c": b"4"})]
    ['< a', '! b', '> c']
    """
    one, other = as_store(left), as_store(right)
    here, there = k.normalize_path(left_path), k.normalize_path(right_path)
    names = {k.replace_root(key, here, "") for key in one.keys_below(here)}
    others = {k.replace_root(key, there, "") for key in other.keys_below(there)}
    both = sorted(names & others)
    mine = one.getitems([k.join(here, name) for name in both])
    yours = other.getitems([k.join(there, name) for name in both])
    for name in sorted(names | others):
        if name not in others:
            yield Difference(name, "left")
        elif name not in names:
            yield Difference(name, "right")
        elif mine.get(k.join(here, name)) != yours.get(k.join(there, name)):
            yield Difference(name, "different")
