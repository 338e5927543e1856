"""One file per key in a directory tree."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Literal

from zarrstore import keys as k
from zarrstore.base import Capabilities
from zarrstore.chunknames import whole_names
from zarrstore.driver import Copier, Driver, Extent
from zarrstore.errors import ConflictError, DestinationExistsError, RootIsFileError
from zarrstore.keys import parent
from zarrstore.metadata.documents import ZARRAY
from zarrstore.stores._files import ABSENT, location, pread
from zarrstore.stores._sync import SyncError, Unsynced
from zarrstore.stores.directory import direct
from zarrstore.stores.directory.copying import copier
from zarrstore.stores.directory.folders import Folders
from zarrstore.stores.directory.irregular import irregular_entries
from zarrstore.stores.directory.names import Names
from zarrstore.stores.directory.reading import READ_FLAGS
from zarrstore.stores.directory.tree import Tree
from zarrstore.stores.directory.writing import ATTEMPTS, DirectoryWriter

__all__ = ["DirectoryStore"]


class DirectoryStore(DirectoryWriter):
    """Keep each value in a file of its own, replaced as a whole.

    Parameters
    ----------
    path : path-like
        The root directory, made absolute here and created by the first write.
    normalize_keys : bool, default False
        Turn keys and paths to lower case, as zarr 2 does on request.
    dimension_separator : {'.', '/'}, optional
        What `init_array` records where the caller names none.
    durability : {'none', 'flush', 'always'}, default 'none'
        From when on a value survives a power cut. 'none': whenever the operating system writes it back. 'flush': when
        `flush` (or `close`) has returned, and from then on: a set that replaces a value syncs the new file first, so
        that a cut finds the old value or the new. Only a key that had no value at the last flush, or whose value
        another store object deleted since, may be torn. 'always': when the set, delete or rename has returned.
    direct_io : bool, default False
        Read and write past the page cache (O_DIRECT), where the system and the file system support it. It leaves the
        cache to others; it is not faster.
    follow_symlinks : bool, default False
        Follow symbolic links that lead out of the root.

    Raises
    ------
    RootIsFileError
        A file is at `path`.
    InvalidPathError
        On Windows: `path` is too long, or stands behind ``\\\\?\\``, where no ``/`` parts names.

    Notes
    -----
    Cost in system calls: 4 a set (with 'flush', 8 over a value, one of them an fsync), 4 a get, 1 an ``in``, 3 a
    delete, 1 in `delitems` of 8 and more keys of one directory; one scan of a directory a `listdir`. Threads and
    processes: safe; a reader sees the old value or the new one, whole. Crash: a killed process leaves every
    acknowledged value, and at most one temporary file a thread, which is no key and is removed by the next listing of
    its directory (one of another machine when it is an hour old). Ctrl-C leaves no temporary file and no open
    descriptor. Deleting prunes empty directories, never the root.

    Symbolic links that stay within the root are followed. Behind a link that leaves it, every key is absent, and a
    write raises PermissionError. The first link met that leaves the root or leads nowhere (a value that git-annex keeps
    elsewhere) is a RuntimeWarning, for a reader takes an absent chunk for fill values. The kind of a directory is
    checked once a second: a link that replaces a directory is followed for a second at most. Setting a key at which a
    link to a file stands replaces the link (and one to a directory, if the store has not met a link within the root
    before). `rmdir` removes links, never what they lead to.
    Only regular files are values. A name that is no text in the encoding of the file system (UTF-8, but for a locale of
    another one) is no key: a listing that meets one warns, once.

    Where the file system does not keep all names apart, a key that it would take for another is absent and cannot be
    set (InvalidKeyError): one that differs from a name that is there in case only, or in the spelling of an accent, and
    on Windows also devices (``con``), ends in a dot or a space, and ``a:b``. `capabilities.case_sensitive` is False
    there. This is looked at once, when the store is made or at its first set.

    Windows without long paths opens nothing of 260 characters and more. A key whose path is longer cannot be set
    (InvalidKeyError; the temporary file needs about 55 characters behind its directory) and is never taken for absent:
    a read, an ``in``, a delete and a listing raise StoreReadError with the way out.

    Names of the ``.partial`` files that killed writers of zarr 2 leave (a dot and 32 hexadecimal digits before it) are
    no keys: they are absent, unlisted, and cannot be set.

    Source: zarr 2.2 and 2.18.7 DirectoryStore. Deviations: a set or delete never removes a subtree (ConflictError,
    KeyError); a failed read is an error, not absence; empty parents are pruned; `clear` keeps the root directory.

    Examples
    --------
    >>> import tempfile
    >>> store = DirectoryStore(tempfile.mkdtemp() + "/data")
    >>> store["foo/0.0"] = b"chunk"
    >>> store["foo/0.0"], store.listdir("foo"), list(store)
    (b'chunk', ['0.0'], ['foo/0.0'])
    >>> store["foo"] = b"value"
    Traceback (most recent call last):
    zarrstore.errors.ConflictError: cannot set 'foo': DirectoryStore(...) holds 'foo/0.0' below it; rmdir('foo') first
    """

    capabilities = Capabilities(hierarchical=True, ranged=True, process_safe=True)

    def __init__(
        self,
        path: str | os.PathLike[str],
        normalize_keys: bool = False,
        dimension_separator: Literal[".", "/"] | None = None,
        *,
        durability: Literal["none", "flush", "always"] = "none",
        direct_io: bool = False,
        follow_symlinks: bool = False,
    ) -> None:
        if durability not in ("none", "flush", "always"):
            raise ValueError(f"durability is {durability!r}: 'none', 'flush' or 'always' is wanted")
        self.path = os.path.abspath(os.fsdecode(path))
        if os.path.exists(self.path) and not os.path.isdir(self.path):
            raise RootIsFileError(self.path, type(self).__name__)
        self.normalize_keys = normalize_keys
        self._aliases = self._aliases or normalize_keys
        self._dimension_separator = dimension_separator
        self.durability = durability
        self.direct_io = direct_io
        self.follow_symlinks = follow_symlinks
        if durability != "none":
            self.capabilities = Capabilities(hierarchical=True, ranged=True, process_safe=True, durable_flush=True)
        self._names = Names(self.path)
        self._folders = Folders(self.path, follow_symlinks, self._names.limit)
        self._base = self._folders.base
        self._unsynced = None if durability == "none" else Unsynced(self._base.__add__)
        # No method of the store: the cycle would keep a dropped store until the next garbage collection.
        self._tree = Tree(self._folders, self._unsynced.folders.add if self._unsynced is not None else None)
        self._read_flags = READ_FLAGS if follow_symlinks else READ_FLAGS | getattr(os, "O_NOFOLLOW", 0)
        self._stat = os.stat if follow_symlinks else os.lstat
        self._pread = direct.pread if direct_io else pread
        self._adopt_names()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path!r})"

    def _place(self) -> object:
        return self.path

    def _location(self, path: str) -> tuple[object, str]:
        return location(self.path, path)

    def __getstate__(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "normalize_keys": self.normalize_keys,
            "dimension_separator": self._dimension_separator,
            "durability": self.durability,
            "direct_io": self.direct_io,
            "follow_symlinks": self.follow_symlinks,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        DirectoryStore.__init__(self, **state)

    # Overrides the public face: drivers and wrappers know children only, and zarr 2 counts chunks by these names.
    def listdir(self, path: object = "") -> list[str]:
        """Return the sorted names of the immediate children of `path`; none for a value or a missing path.

        Where the store's separator is '/', chunks of an array are given by their whole names (``0/1``), as in zarr
        2.18.7, whose `nchunks_initialized` counts them.
        """
        names = super().listdir(path)
        if self._dimension_separator != "/" or ZARRAY not in names:
            return names
        return whole_names(names, k.normalize_path(path), self._keys)

    # Trees --------------------------------------------------------------------------------------------------------

    def _rmdir(self, path: str) -> None:
        path = self._own_path(path)
        self._note_removal(path)
        try:
            self._tree.remove(path)
        except OSError as exc:
            raise self._write_error("remove", path, exc) from exc
        finally:
            self._note_removal(path)
        self._sync_if_always()

    def _rename(self, source: str, destination: str) -> None:
        self._rename_noted(source, destination)
        self._sync_if_always()

    def _rename_noted(self, source: str, destination: str) -> None:
        """Move a value or a directory, and note what the next flush is to sync."""
        source, destination = self._own_path(source), self._new_key(destination)
        unsynced = self._unsynced
        if unsynced is None:
            self._move(source, destination)
            return
        is_value = not os.path.isdir(self._base + source)
        # Before, for Ctrl-C behind the move; after, for what another thread set below the source meanwhile.
        unsynced.copy(source, destination, is_value)
        unsynced.note_removal(source)
        try:
            unsynced.sync_before_move(source, destination, is_value)
            self._move(source, destination)
        except SyncError as exc:
            raise self._write_error("rename", source, exc) from exc
        finally:
            # Asked again: another thread may have put a directory in the place of the value.
            unsynced.copy(source, destination, is_value and not os.path.isdir(self._base + destination))
            unsynced.note_removal(source)

    def _move(self, source: str, destination: str) -> None:
        for attempt in range(ATTEMPTS):
            try:
                self._folders.check(parent(source))
                self._folders.check(parent(destination))
                self._tree.move(source, destination)
                break
            except OSError as exc:
                try:
                    self._make_way_for_move(source, destination, exc, attempt)
                except OSError as failed:
                    self._tree.prune(parent(destination))
                    if isinstance(failed, DestinationExistsError):
                        raise
                    raise self._write_error("rename", source, failed) from failed
        self._tree.prune(parent(source))

    def _make_way_for_move(self, source: str, destination: str, exc: OSError, attempt: int) -> None:
        try:
            os.lstat(self._base + source)  # not lexists: to that, a disk that cannot be read is an absent source
        except OSError as absent:
            if absent.errno not in ABSENT:
                raise
            self._tree.prune(parent(destination))
            raise KeyError(source) from exc
        if isinstance(exc, FileNotFoundError) and attempt < ATTEMPTS - 1:
            return self._make(parent(destination), destination)
        if exc.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.EISDIR, errno.ENOTDIR):
            raise exc
        for above in k.parents(destination):
            if above and self._status(above) is not None:
                raise ConflictError(destination, self, above) from exc
        self._tree.remove(destination, keyless_only=True)
        if os.path.lexists(self._base + destination):
            raise DestinationExistsError(source, destination) from exc

    # Life -------------------------------------------------------------------------------------------------------------

    def _folded_key(self, key: str) -> str:
        return key.lower() if self.normalize_keys else key

    def _extent(self, key: str) -> Extent | None:
        return Extent(self._base + self._own_path(self._stored_key(key)))

    def _irregular(self, path: str) -> Iterable[tuple[str, str]]:
        return irregular_entries(self._folders.root, self._own_path(path), self._folders.follow)

    def _sweep(self, path: str, dry_run: bool) -> Iterable[str]:
        names = list(self._tree.leftovers(self._own_path(path)))
        for name in () if dry_run else names:
            with suppress(FileNotFoundError):
                os.unlink(self._base + name)
        return names

    def _flush(self) -> None:
        if self._unsynced is None:
            return
        exc = self._unsynced.sync()
        if exc is not None:
            failed = self._unsynced.failures()
            # A second fsync would succeed in vain: the system has dropped the pages that the first could not write.
            advice = f"; set {failed[0]!r} again ({len(failed)} in all)" if failed else ""
            raise OSError(exc.errno, f"cannot make {self} durable: {exc.strerror or exc}{advice}") from exc

    def _close(self) -> None:
        self._flush()

    def _copier(self, source: Driver) -> Copier | None:
        # Not of classes that refine this one: they spell keys in their own way.
        if type(self) is not DirectoryStore:
            return None
        if type(source) is DirectoryStore:
            return copier(source, self)
        return None if self.durability == "always" else source._copier_to(self._set)
