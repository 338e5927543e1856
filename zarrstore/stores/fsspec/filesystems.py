"""What fsspec's filesystems are, and how they are kept from remembering."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

from zarrstore.optional import require

__all__ = ["lists_whole", "names", "parameters", "protocols", "uncached"]


def uncached(fs: Any) -> Any:
    """Return a twin of a filesystem, on the same connection, that remembers no listing.

    To drop what is remembered before each look is not enough: another thread's listing, begun before a delete, may be
    remembered after it.
    """
    asyn = require("fsspec.asyn", extra="fsspec", feature="FSStore")
    dircache = require("fsspec.dircache", extra="fsspec", feature="FSStore")
    twin = object.__new__(type(fs))
    # An asynchronous filesystem has its synchronous methods in itself, bound to itself: these are made again.
    mirrored = {name for name in fs.__dict__ if inspect.isfunction(fs.__dict__[name]) and hasattr(type(fs), f"_{name}")}
    twin.__dict__.update({name: value for name, value in fs.__dict__.items() if name not in mirrored})
    twin.__dict__["dircache"] = dircache.DirCache(use_listings_cache=False)
    twin.__dict__["_twin"] = fs  # whose end would close the connection
    if (inner := fs.__dict__.get("fs")) is not None:
        twin.__dict__["fs"] = uncached(inner)
    if mirrored:
        asyn.mirror_sync_methods(twin)
    return twin


def names(fs: Any) -> set[str]:
    """Return the names of a filesystem's protocol."""
    return {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)


def protocols(fs: Any) -> set[str]:
    """Return the names of a filesystem and of those it wraps."""
    found: set[str] = set()
    while fs is not None:
        found |= names(fs)
        fs = getattr(fs, "fs", None)
    return found


def parameters(function: Any) -> Iterable[str]:
    """Return the names of a function's parameters; none for what is no function."""
    return inspect.signature(function).parameters if callable(function) else ()


def lists_whole(fs: Any) -> bool:
    """Tell whether a filesystem has a `find` of its own. fsspec's leaves out what it cannot read, without a word."""
    spec = require("fsspec.spec", extra="fsspec", feature="FSStore")
    asyn = require("fsspec.asyn", extra="fsspec", feature="FSStore")
    if isinstance(fs, asyn.AsyncFileSystem):
        return type(fs)._find is not asyn.AsyncFileSystem._find
    return type(fs).find is not spec.AbstractFileSystem.find
