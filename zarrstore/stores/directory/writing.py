"""Setting and deleting of values in a directory tree, and what stands in their way."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from itertools import islice

from zarrstore import keys as k
from zarrstore.batch import checklist
from zarrstore.errors import ConflictError, InvalidKeyError, RootIsFileError
from zarrstore.keys import parent
from zarrstore.longpaths import PathLengthError
from zarrstore.stores._files import (
    ABSENT,
    TEMPORARY_LENGTH,
    is_busy,
    release_name,
    rename_new,
    temporary_name,
    with_file,
    write_rest,
)
from zarrstore.stores._sync import MAX_UNSYNCED, THREADS, Unsynced, fsync_file
from zarrstore.stores.directory import direct
from zarrstore.stores.directory.folders import LeavesRootError
from zarrstore.stores.directory.reading import DirectoryReader

__all__ = ["ATTEMPTS", "DirectoryWriter"]

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)

#: How often a write begins again while others prune, sweep or rename.
ATTEMPTS = 64
#: Values that `setitems` writes before it syncs their directories.
_BATCH = 64
#: Values that `delitems` deletes after one listing of their directory, and how few are not worth it.
_LISTED, _FEW = 4096, 8


class DirectoryWriter(DirectoryReader):
    """What `DirectoryStore` does with one value at a time. Its attributes are set there."""

    # Every set has written the buffer when it returns.
    takes_buffers = True

    durability: str
    direct_io: bool
    _unsynced: Unsynced | None

    # Set ----------------------------------------------------------------------------------------------------------

    def _set(self, key: str, value: bytes | memoryview) -> None:
        self._write(key, value)
        self._sync_if_always()

    def _write(self, key: str, value: bytes | memoryview) -> None:
        if self._judges_names or key[-8:] == ".partial":
            key = self._new_key(key)
        try:
            self._replace(key, value)
        except OSError as exc:
            self._retry_write(key, value, exc)
        if self._names.folds is None:
            self._learn_names(key)
        if self._unsynced is not None and len(self._unsynced.files) > MAX_UNSYNCED:
            self._flush()

    def _new_key(self, key: str) -> str:
        """Return the key under which `key` is set; InvalidKeyError if the store keeps no such name, or none so long."""
        names = self._names
        # The file is written under a temporary name in the same directory first.
        problem = names.length_problem(key) or names.length_problem(parent(key), TEMPORARY_LENGTH + 1)
        if problem:
            raise InvalidKeyError(key, problem)
        return self._own_key(key)

    def _learn_names(self, key: str) -> None:
        self._names.learn(key)
        self._adopt_names()

    def _adopt_names(self) -> None:
        """Have keys judged from now on if the place does not keep all of them apart."""
        self._judges_names = self.normalize_keys or self._names.restricts
        if self._judges_names and self.capabilities.case_sensitive:
            self.capabilities = replace(self.capabilities, case_sensitive=False)

    def _replace(self, key: str, value: bytes | memoryview) -> None:
        """Write a new file and give it the name of the key, in one step."""
        directory = parent(key)
        folder = self._folders.check(directory)
        # A replace would delete the link, and the keys below it.
        if self._folders.links and self._folders.is_link_to_directory(key):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        # Within the directory of the key: os.replace is one step only within a file system.
        name = temporary_name()
        temporary = f"{folder}/{name}" if directory else folder + name
        try:
            with_file(temporary, _CREATE, lambda fd: self._write_file(fd, value))
            if self._unsynced is None:
                os.replace(temporary, self._base + key)
            else:
                self._replace_noted(temporary, key, directory)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        finally:
            release_name(name)

    def _write_file(self, fd: int, value: bytes | memoryview) -> None:
        count = direct.write(fd, value) if self.direct_io else os.write(fd, value)
        if count != len(value):
            write_rest(fd, value, count)
        if self.durability == "always":
            os.fsync(fd)

    def _replace_noted(self, temporary: str, key: str, directory: str) -> None:
        unsynced = self._unsynced
        assert unsynced is not None
        is_synced = self.durability == "always"
        try:
            if not is_synced and (unsynced.was_removed(key) or not rename_new(temporary, self._base + key)):
                # A rename may reach the disk before the bytes of the file, and the old value may have been flushed.
                fsync_file(temporary)
                is_synced = True
            if is_synced:
                os.replace(temporary, self._base + key)
        finally:
            # In `finally`: if Ctrl-C comes behind the rename, the new value stands, and the next flush must sync it.
            if not is_synced:
                unsynced.files.add(key)
            unsynced.folders.add(directory)

    def _retry_write(self, key: str, value: bytes | memoryview, exc: OSError) -> None:
        """Remove the cause of a failed write and write again; raise what the cause means if it cannot be removed."""
        try:
            for attempt in range(ATTEMPTS):
                try:
                    if isinstance(exc, FileNotFoundError):
                        self._make(parent(key), key)
                    elif isinstance(exc, NotADirectoryError | IsADirectoryError) or os.path.isdir(self._base + key):
                        self._make_way(key, exc, attempt)
                    elif is_busy(exc) and attempt < 10:
                        time.sleep(0.001 * 2**attempt)
                    else:
                        break
                    return self._replace(key, value)
                except OSError as again:
                    exc = again
            raise self._write_error("set", key, exc) from exc
        except BaseException:
            self._tree.prune(parent(key))
            raise

    def _make_way(self, key: str, exc: OSError, attempt: int) -> None:
        """Remove directories that hold no key from where a value is to be; raise what else is there."""
        if os.path.exists(self.path) and not os.path.isdir(self.path):
            raise RootIsFileError(self.path, type(self).__name__) from exc
        for above in k.parents(key):
            if above and os.path.lexists(self._base + above) and not os.path.isdir(self._base + above):
                raise ConflictError(key, self, above) from exc
        below = next(iter(DirectoryReader._keys(self, key)), None)
        if below is not None:
            raise ConflictError(key, self, below) from exc
        self._tree.remove(key, keyless_only=True)
        if attempt >= 10 and os.path.isdir(self._base + key):
            # Another writer is about to set a value there, or something is there that is no value.
            raise ConflictError(key, self, k.join(key, next(iter(os.listdir(self._base + key)), "?"))) from exc

    def _make(self, path: str, key: str) -> None:
        """Create the directory `path` for `key`."""
        self._tree.make(path)

    def _write_error(self, verb: str, key: str, exc: OSError) -> Exception:
        """Return an error that names the key and has the errno of the system's."""
        if isinstance(exc, LeavesRootError):
            reason = f"{exc.path!r} is a symbolic link that leaves {self}; follow_symlinks=True follows it"
            return PermissionError(errno.EPERM, f"cannot {verb} {key!r}: {reason}")
        if isinstance(exc, PathLengthError):
            return OSError(exc.errno, f"cannot {verb} {key!r} in {self}: {exc.path!r} is below it, and {exc.reason}")
        if exc.errno == errno.ENAMETOOLONG:
            return InvalidKeyError(key, f"the file system of {self} takes no name so long")
        refuses_name = exc.errno in (errno.EINVAL, errno.EILSEQ) or isinstance(exc, FileNotFoundError)
        if verb == "set" and refuses_name and os.path.isdir(self.path):
            return InvalidKeyError(key, f"the file system of {self} takes no such name")
        return OSError(exc.errno, f"cannot {verb} {key!r} in {self}: {exc.strerror or exc}")

    # Delete -------------------------------------------------------------------------------------------------------

    def _delete(self, key: str) -> None:
        for directory in self._unlink(key):
            self._tree.prune(directory)
        if self._unsynced is not None:
            self._sync_if_always()

    def _unlink(self, key: str, is_value: bool = False) -> Iterable[str]:
        """Remove the file of a value and return the directories that may be empty now.

        With `is_value`, the file is known to be a regular one.
        """
        if self._judges_names or key[-8:] == ".partial":
            key = self._own_key(key)
        # The status first: a FIFO, or a link that leaves the root, is no key and stays.
        if not is_value and self._status(key) is None:
            raise KeyError(key)
        directory = parent(key)
        try:
            if self._unsynced is None:
                os.unlink(self._base + key)
            else:
                self._unlink_noted(key, directory)
        except OSError as exc:
            if exc.errno in ABSENT:
                raise KeyError(key) from exc
            raise self._write_error("delete", key, exc) from exc
        return (directory,)

    def _unlink_noted(self, key: str, directory: str) -> None:
        self._note_removal(key)
        try:
            os.unlink(self._base + key)
        finally:
            self._note_removal(key)
            self._note_change(directory)

    # Batches ------------------------------------------------------------------------------------------------------

    def _delete_many(self, keys: Iterable[str]) -> None:
        emptied: set[str] = set()
        pending = iter(keys)
        try:
            while batch := list(islice(pending, _LISTED)):
                values = self._values_among(batch)
                for key in batch:
                    try:  # not `suppress`, which takes as long as a fifth of the call
                        emptied.update(self._unlink(key, key in values))
                    except KeyError:
                        continue
        finally:
            for directory in emptied:  # once for all its keys
                self._tree.prune(directory)
        self._sync_if_always()

    def _values_among(self, keys: list[str]) -> set[str]:
        """Return keys that one listing of the directory of some keys shows as regular files."""
        directory = parent(keys[0])
        if self._judges_names or len(keys) < _FEW or parent(keys[-1]) != directory:
            return set()
        # A listing costs a fourth of a status a name; in a directory of many more names it costs more than all.
        names = self._tree.regular_files(directory, 2 * len(keys))
        lead = k.prefix(directory)
        return {lead + name for name in names if name[-8:] != ".partial"}

    def _set_many(self, items: Iterable[tuple[str, bytes | memoryview]]) -> None:
        if self.durability != "always":
            done = checklist(items)
            for key, value in items:
                self._set(key, value)
                done.add(key)
            return
        from zarrstore.threads import Threads

        pairs = iter(items)
        with Threads(THREADS, "zarrstore-set") as pool:
            # dict: of the same key twice, the last counts. Syncs that overlap cost little more than one.
            while batch := dict(islice(pairs, _BATCH)):
                list(pool.map(self._write, batch.keys(), batch.values()))
                self._flush()

    # Durability ---------------------------------------------------------------------------------------------------

    def _note_change(self, path: str) -> None:
        """Note that names in a directory have changed."""
        if self._unsynced is not None:
            self._unsynced.folders.add(path)

    def _note_removal(self, path: str) -> None:
        """Note, before and after, that what is at a path and below is removed."""
        # Before, for a set in another thread; after, because a flush in between has forgotten it.
        if self._unsynced is not None:
            self._unsynced.note_removal(path)

    def _sync_if_always(self) -> None:
        if self.durability == "always":
            self._flush()
