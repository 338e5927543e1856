"""What fsspec's filesystems are, and how they are kept from remembering."""

from __future__ import annotations

import inspect
import re
import threading
from collections.abc import Iterable
from typing import Any

from zarrstore.optional import require
from zarrstore.urls import without_secrets

__all__ = [
    "below_copies",
    "forget",
    "identity",
    "is_cache",
    "lists_whole",
    "locked",
    "names",
    "protocols",
    "state",
    "uncached",
    "unlocked",
    "unsafe_names",
    "wraps_foreign",
]

#: Names that a protocol's client does not keep apart from others, or cannot ask for.
_UNSAFE_NAMES = {
    # It parses the path of a URL: "a?b" and "a#b" are "a" there, and "a%20b" is "a b". Its listings are XML, which has
    # no U+FFFE and U+FFFF: one such name makes a listing unreadable. White space at the end of a directory's name is
    # trimmed from them, and what is below it is missing.
    "webdav": re.compile(r"[?#\x00-\x1f\x7f\ufffe\uffff]|%[0-9A-Fa-f]{2}|\s(?:/|$)"),
    # A line of text carries a name; spaces at its ends are trimmed.
    "ftp": re.compile(r"[\x00-\x1f\x7f]|(?:^|/)\s|\s(?:/|$)"),
}


def unsafe_names(fs: Any) -> re.Pattern[str] | None:
    """Return what in a key makes a filesystem take it for another, None if it keeps all apart."""
    return next((_UNSAFE_NAMES[name] for name in sorted(protocols(fs)) if name in _UNSAFE_NAMES), None)


def uncached(fs: Any) -> Any:
    """Return a twin of a filesystem, on the same connection, that remembers no listing.

    To drop what is remembered before each look is not enough: another thread's listing, begun before a delete, may be
    remembered after it.
    """
    spec = require("fsspec.spec", extra="fsspec", feature="FSStore")
    asyn = require("fsspec.asyn", extra="fsspec", feature="FSStore")
    dircache = require("fsspec.dircache", extra="fsspec", feature="FSStore")
    attributes = state(fs)
    twin = object.__new__(type(fs))
    twin_attributes = state(twin)
    # An asynchronous filesystem keeps its synchronous methods in itself, bound to itself: these are made again.
    mirrored = {
        name for name, value in attributes.items() if inspect.isfunction(value) and hasattr(type(fs), f"_{name}")
    }
    twin_attributes.update({name: value for name, value in attributes.items() if name not in mirrored})
    twin_attributes["dircache"] = dircache.DirCache(use_listings_cache=False)
    twin_attributes["_twin"] = fs  # whose end would close the connection
    # Only what is fsspec's own: pyarrow's filesystem, which one of fsspec's wraps, is none.
    if isinstance(inner := attributes.get("fs"), spec.AbstractFileSystem):
        twin_attributes["fs"] = uncached(inner)
    if mirrored:
        asyn.mirror_sync_methods(twin)
    return twin


def state(fs: Any) -> dict[str, Any]:
    """Return the attributes of a filesystem; a caching one answers for them with those of another."""
    found: dict[str, Any] = object.__getattribute__(fs, "__dict__")
    return found


def forget(fs: Any, paths: Iterable[str]) -> None:
    """Drop what the caller's own filesystem, of which `fs` is the twin, remembers of changed places."""
    at: Any = fs
    while at is not None:
        own = state(at)
        original = own.get("_twin")
        if original is not None and state(original).get("dircache"):
            for path in paths:
                original.invalidate_cache(path)
                original.invalidate_cache(original._parent(path))
        at = own.get("fs")
        if not hasattr(at, "protocol"):
            return


def wraps_foreign(fs: Any) -> bool:
    """Tell whether a filesystem stands for one that is not fsspec's, as pyarrow's, under whose names it goes."""
    spec = require("fsspec.spec", extra="fsspec", feature="FSStore")
    at: Any = fs
    while isinstance(at, spec.AbstractFileSystem):
        at = state(at).get("fs")
    return at is not None


def is_cache(fs: Any) -> bool:
    """Tell whether a filesystem keeps copies of another's files (``simplecache::`` and its like)."""
    cached = require("fsspec.implementations.cached", extra="fsspec", feature="FSStore")
    return isinstance(fs, cached.CachingFileSystem)


def below_copies(fs: Any) -> Any:
    """Return the filesystem whose files one like ``simplecache::`` keeps; any other is returned as it is."""
    while is_cache(fs):
        fs = state(fs)["fs"]
    return fs


def locked(fs: Any) -> Any:
    """Return a filesystem whose calls come one at a time: for a protocol with one connection and one command on it."""
    return _Locked(fs)


def unlocked(fs: Any) -> Any:
    """Return the filesystem behind `locked`; any other as it is."""
    return fs._fs if isinstance(fs, _Locked) else fs


class _Locked:
    def __init__(self, fs: Any) -> None:
        self._fs = fs
        self._lock = threading.RLock()

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._fs, name)
        if not inspect.ismethod(value):
            return value

        def call(*args: Any, **options: Any) -> Any:
            with self._lock:
                return value(*args, **options)

        return call

    def __reduce__(self) -> tuple[Any, ...]:
        return locked, (self._fs,)


def names(fs: Any) -> set[str]:
    """Return the names of a filesystem's protocol."""
    return {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)


def protocols(fs: Any) -> set[str]:
    """Return the names of a filesystem and of those of fsspec that it wraps."""
    found: set[str] = set()
    while fs is not None and hasattr(fs, "protocol"):
        found |= names(fs)
        fs = state(fs).get("fs")
    return found


def lists_whole(fs: Any) -> bool:
    """Tell whether a filesystem has a `find` of its own. fsspec's leaves out what it cannot read, without a word."""
    fs = unlocked(fs)
    spec = require("fsspec.spec", extra="fsspec", feature="FSStore")
    asyn = require("fsspec.asyn", extra="fsspec", feature="FSStore")
    if isinstance(fs, asyn.AsyncFileSystem):
        return type(fs)._find is not asyn.AsyncFileSystem._find
    return type(fs).find is not spec.AbstractFileSystem.find


def identity(fs: Any) -> str:
    """Say as whom a filesystem asks and which options change that, for an error about a permission.

    Nothing secret: of a key, as S3 calls a user's name, its first four characters.
    """
    options: dict[str, Any] = dict(getattr(fs, "storage_options", None) or {})
    if "anon" in options or not {"s3", "s3a"}.isdisjoint(protocols(fs)):
        return (
            f"asked {_s3_identity(fs, options)}; the options key and secret, profile, anon and endpoint_url change that"
        )
    user = next((options[name] for name in ("username", "user") if options.get(name)), None)
    if user:
        return f"asked as the user {user!r}; the options of the filesystem change that"
    return "asked with the credentials that the filesystem finds; its options change that"


def _s3_identity(fs: Any, options: dict[str, Any]) -> str:
    client = options.get("client_kwargs") or {}
    endpoint = options.get("endpoint_url") or client.get("endpoint_url")
    place = f" at {without_secrets(str(endpoint))}" if endpoint else ""
    key = getattr(fs, "key", None)
    if options.get("anon"):
        return f"without credentials (anon=True){place}"
    if key:
        return f"with the key {str(key)[:4]}...{place}"
    if options.get("profile"):
        return f"with the profile {options['profile']!r}{place}"
    return f"with the credentials of the environment{place}"
