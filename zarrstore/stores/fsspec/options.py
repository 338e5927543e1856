"""Storage options that a filesystem does not take, or lacks: what fsspec says of them in the words of its own code."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Mapping
from typing import Any

from zarrstore.optional import require
from zarrstore.urls import without_secrets

__all__ = ["refusal"]

_UNKNOWN = re.compile(r"unexpected keyword argument '(\w+)'")
_MISSING = re.compile(r"missing \d+ required (?:positional|keyword-only) arguments?: (.+)")

#: Parameters that no user sets.
_INNER = ("self", "asynchronous", "loop")


def refusal(url: str, options: Mapping[str, Any], exc: BaseException) -> ValueError | None:
    """Return the error for storage options that a filesystem refuses; None if `exc` tells of something else.

    Notes
    -----
    Some filesystems hand what they do not know to a library, which refuses it at the first request.

    Examples
    --------
    >>> print(refusal("memory://x", {"foo": 1}, TypeError("f() got an unexpected keyword argument 'foo'")))
    cannot open 'memory://x' with the storage option 'foo': it takes none of this name; leave it out...
    """
    if not isinstance(exc, TypeError):
        return None
    shown = repr(without_secrets(url))
    if missing := _MISSING.search(str(exc)):
        return ValueError(f"cannot open {shown} without the storage option {missing[1]}; pass it")
    found = _UNKNOWN.search(str(exc))
    name = found[1] if found else ""
    within = [outer for outer, value in options.items() if isinstance(value, Mapping) and name in value]
    if name not in options and not within:
        return None
    if name not in options:
        return ValueError(
            f"cannot open {shown} with {name!r} in the storage option {within[0]!r}: it takes none of this name there; "
            "leave it out"
        )
    taken = _taken(url)
    near = difflib.get_close_matches(name, taken, n=3, cutoff=0.6)
    way = f"did you mean {' or '.join(near)}?" if near else ""
    if not way:
        way = f"leave it out, or name one of {', '.join(taken)}" if taken else "leave it out"
    return ValueError(f"cannot open {shown} with the storage option {name!r}: it takes none of this name; {way}")


def _taken(url: str) -> list[str]:
    """Return the options that the filesystem of a URL names itself."""
    fsspec = require("fsspec", extra="fsspec", feature="FSStore")
    protocol = re.split("::|://", url)[0]
    try:
        parameters = inspect.signature(fsspec.get_filesystem_class(protocol).__init__).parameters.values()
    except Exception:  # of an unknown protocol, or one whose package is not here
        return []
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return sorted(one.name for one in parameters if one.kind in kinds and one.name not in _INNER)
