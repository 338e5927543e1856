"""A store of one file at a URL: recognised by its first bytes, read by ranges, or through a local copy.

A zip archive is read where it is. LMDB, SQLite and DBM need a file system: their file is copied into a cache folder
once, and again when it has changed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from zarrstore import keys as k
from zarrstore.base import Entry, Store
from zarrstore.errors import StoreReadError
from zarrstore.kinds import Kind, kind_of_head, kind_of_suffix
from zarrstore.values import sha256

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["RemoteFile", "cache_folder", "find", "find_unnamed", "local_copy", "split"]

#: What one request of a local copy brings, in bytes.
_STEP = 16 << 20
#: Bytes at the start of a file by which its kind is told.
_HEAD = 64

#: Protocols of fsspec that keep what they have read of the file system after them.
_CACHES = frozenset({"simplecache", "filecache", "blockcache"})


class RemoteFile(NamedTuple):
    """A file at a URL that is a whole store.

    Parameters
    ----------
    url : str
        Where it is.
    folder : Store
        The store of the directory above it.
    name : str
        Its key there.
    kind : Kind
        By its first bytes.
    """

    url: str
    folder: Store
    name: str
    kind: Kind


def find(url: str, open_folder: Callable[[str], Store]) -> RemoteFile | None:
    """Return the store of one file at a URL, None if no file is there, or none of a kind that is known.

    Parameters
    ----------
    url : str
        Of the file. The query of an ``http`` URL belongs to each of its requests.
    open_folder : callable
        Makes the store of the directory above, given its URL.

    Notes
    -----
    Cost: one request. A file that is named as an archive and is none gives its kind by the name, so that opening it
    says what is wrong.
    """
    place = split(url)
    if place is None:
        return None
    name = place[1]
    folder = open_folder(place[0])
    try:
        head = folder.getrange(name, 0, _HEAD)
    except KeyError:
        folder.close()
        return None
    by_name = kind_of_suffix(name)
    kind = kind_of_head(head) or (None if by_name.is_folder or by_name.name == "dict" else by_name)
    if kind is None:
        folder.close()
        return None
    return RemoteFile(url, folder, name, kind)


def find_unnamed(url: str, open_folder: Callable[[str], Store]) -> RemoteFile | None:
    """Return the store of one file at a URL whose name tells nothing; None for a URL that ends as a hierarchy does.

    Notes
    -----
    Cost: one request, and none for what ends in ``/``, ``.zarr`` or ``.n5``. A place that may not be read is no file:
    a directory mostly, and what is below it tells by itself.
    """
    place = url.partition("?")[0].lower()
    if place.endswith(("/", ".zarr", ".n5")) or not ends_at_file(url):
        return None
    try:
        return find(url, open_folder)
    except (StoreReadError, PermissionError):
        return None


def split(url: str) -> tuple[str, str] | None:
    """Return the URL of the directory above, and the key of the file there; None if the URL names no file.

    Examples
    --------
    >>> split("s3://bucket/a/b.zip"), split("https://host/a/b%20c.zip?token=1"), split("s3://bucket")
    (('s3://bucket/a', 'b.zip'), ('https://host/a?token=1', 'b c.zip'), None)
    """
    scheme, _, rest = url.partition("://")
    place, question, query = rest.partition("?") if scheme.startswith("http") else (rest, "", "")
    above, _, name = place.rstrip("/").rpartition("/")
    if scheme.startswith("http"):
        from urllib.parse import unquote

        name = unquote(name)
    if not above or not k.is_key(name):
        return None
    return f"{scheme}://{above}{question}{query}", name


def ends_at_file(url: str) -> bool:
    """Tell whether the last path of a URL may be that of a file to open.

    In a chain of fsspec it is not, unless what stands before it only caches.

    Examples
    --------
    >>> ends_at_file("simplecache::s3://b/y.zip"), ends_at_file("zip://x::s3://b/y.zip")
    (True, False)
    """
    *before, _ = url.split("::")
    return _CACHES.issuperset(before)


def cache_folder() -> Path:
    """Return the folder of local copies: ``$ZARRSTORE_CACHE``, or ``zarrstore`` in the user's cache directory."""
    from pathlib import Path  # here, as logging below: each URL that is opened is looked at by this module

    named = os.environ.get("ZARRSTORE_CACHE")
    if named:
        return Path(named)
    if sys.platform == "win32":  # pragma: no cover
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local", "zarrstore", "Cache")
    if sys.platform == "darwin":  # pragma: no cover
        return Path.home() / "Library" / "Caches" / "zarrstore"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "zarrstore")


def local_copy(file: RemoteFile) -> str:
    """Return the path of a local copy of a remote file, made now unless one of the same version is there.

    Raises
    ------
    StoreReadError
        The file ended, or changed, while it was copied.

    Notes
    -----
    The version is the store's identity of the file (an ETag). Where it has none, the file is copied each time. One line
    is logged for each copy. Processes: each copies under a name of its own and renames.
    """
    import logging

    entry = file.folder._entry(file.name)
    folder = cache_folder() / "files" / _digest(file.url)
    target = folder / f"{_digest(f'{entry.identity} {entry.nbytes}')}{os.path.splitext(file.name)[1]}"
    if not (entry.identity and target.exists()):
        folder.mkdir(parents=True, exist_ok=True)
        logging.getLogger("zarrstore").warning("copying %s (%s bytes) to %s", file.url, f"{entry.nbytes:,}", target)
        _copy(file, entry, target)
        for other in folder.iterdir():
            if other.name.partition(".")[0] != target.name.partition(".")[0]:
                with suppress(OSError):  # of another version, perhaps open in another process
                    other.unlink()
    return str(target)


def _copy(file: RemoteFile, entry: Entry, target: Path) -> None:
    beside = target.with_name(f"{target.name}.{os.getpid()}.new")
    try:
        with open(beside, "wb") as output:
            while output.tell() < entry.nbytes:
                part = file.folder.getrange(file.name, output.tell(), min(entry.nbytes, output.tell() + _STEP))
                if not part:
                    raise StoreReadError(file.name, file.folder, "it ended while it was copied")
                output.write(part)
        again = file.folder._entry(file.name)
        if (again.identity, again.nbytes) != (entry.identity, entry.nbytes):
            raise StoreReadError(file.name, file.folder, "it changed while it was copied; open it again")
        os.replace(beside, target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _digest(text: str) -> str:
    return sha256(text.encode())[:32]
