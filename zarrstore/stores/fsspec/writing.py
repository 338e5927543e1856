"""Changes of a filesystem that keep what was there if they fail, and erase no subtree."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

from zarrstore import keys as k
from zarrstore.base import Entry
from zarrstore.batch import batches, checklist
from zarrstore.driver import Copier, Driver, Pair
from zarrstore.errors import ConflictError
from zarrstore.stores.fsspec import filesystems
from zarrstore.stores.fsspec.listing import Listing
from zarrstore.stores.fsspec.options import refusal
from zarrstore.stores.fsspec.place import ABSENT, ATTEMPTS, temporary
from zarrstore.stores.fsspec.requests import S3Requests

__all__ = ["Writing"]

#: Values of one batch of writes, in bytes and in number.
_BATCH_BYTES, _BATCH_KEYS = 64 << 20, 1000


class Writing(Listing):
    """The driver methods that set, delete and move."""

    def _changed(self, *keys: str) -> None:
        """Let the caller's own filesystem forget what it remembers of these places."""
        filesystems.forget(filesystems.unlocked(self._fs), [self._lead + self._name(key) for key in keys])

    def _set(self, key: str, value: bytes) -> None:
        self._refuse_if_read_only(key)
        try:
            if isinstance(self._requests, S3Requests):
                self._requests.put(self._name(key), value)
            else:
                self._write(key, value)
        except BaseException as exc:
            if (refused := refusal(self.url, getattr(self.fs, "storage_options", None) or {}, exc)) is not None:
                raise refused from None
            self._explain(exc, key)
            raise
        finally:
            self._changed(key)

    def _explain(self, exc: BaseException, key: str) -> None:
        if not isinstance(exc, ConflictError):
            exc.add_note(f"while setting {key!r} in {self}")
        if isinstance(exc, PermissionError):
            exc.add_note(self._identity())

    def _write(self, key: str, value: bytes) -> None:
        path = self._path(key)
        if not (self._traits.flat or self._traits.refuses):
            self._refuse_if_conflict(key)
        target = self._path(k.join(k.parent(key), temporary())) if self._traits.local else path
        for attempt in range(ATTEMPTS):
            try:
                self.fs.pipe_file(target, value)
                if self._traits.local:
                    os.replace(target, path)
                return
            except FileNotFoundError as exc:
                # The directory is missing, or a delete has just emptied and removed it.
                # Kept without its frames: this one holds it and the value, until the next garbage collection.
                problem: Exception = exc.with_traceback(None)
                self._make_directory(key)
            except (IsADirectoryError, NotADirectoryError, FileExistsError) as exc:
                problem = exc.with_traceback(None)
                self._discard(target)
                self._refuse_if_conflict(key)
                self._remove_empty(self._path(key))  # an empty directory is no conflict
            except Exception as exc:
                # FTP and others have no class of their own for a missing directory.
                self._discard(target)
                if not self._traits.flat:
                    self._refuse_if_conflict(key)
                if attempt or self._traits.flat or self._traits.local or self.fs.isdir(self._path(k.parent(key))):
                    raise
                problem = exc.with_traceback(None)
                self._make_directory(key)
            except BaseException:
                self._discard(target)
                raise
        if not self._traits.flat:
            self._refuse_if_conflict(key)
        raise problem

    def _make_directory(self, key: str) -> None:
        try:
            self.fs.makedirs(self._path(k.parent(key)), exist_ok=True)
        except (NotADirectoryError, FileExistsError):
            self._refuse_if_conflict(key)
        except Exception:
            self._refuse_if_conflict(key)
            raise

    def _refuse_if_conflict(self, key: str) -> None:
        """Raise ConflictError if a value stands above `key`, or a directory with values at it."""
        for above in k.parents(key):
            if above and not self._traits.flat and self._contains(above):
                raise ConflictError(key, self, above)
        below = next(iter(self._listdir(key)), None)
        if below is not None:
            raise ConflictError(key, self, k.join(key, below))

    def _discard(self, target: str) -> None:
        if self._traits.local:
            try:
                os.unlink(target)
            except OSError:
                pass

    def _set_many(self, items: Iterable[tuple[str, bytes]]) -> None:
        if not (self._traits.remote and self._traits.flat):
            return super()._set_many(items)
        done = checklist(items)
        for batch in batches(items, _BATCH_KEYS, _BATCH_BYTES):
            self._refuse_if_read_only(next(iter(batch)))
            try:
                if isinstance(self._requests, S3Requests):
                    keys = {self._name(key): key for key in batch}
                    values = [(name, batch[key]) for name, key in keys.items()]
                    self._requests.put_many(values, lambda name, keys=keys: done.add(keys[name]))  # type: ignore[misc]
                else:
                    self.fs.pipe({self._path(key): value for key, value in batch.items()}, batch_size=self.workers)
            except PermissionError as exc:
                exc.add_note(self._identity())
                raise
            finally:
                self._changed(*batch)

    def _delete(self, key: str) -> None:
        self._refuse_if_read_only(key)
        # An object store deletes what is missing without a word.
        if self._traits.flat:
            self._check_presence(key)
        if isinstance(self._requests, S3Requests):
            self._delete_objects([key])
        else:
            self._erase(key)
            self._changed(key)

    def _erase(self, key: str) -> None:
        if not (self._traits.careful or self._traits.flat):
            self._info(key)  # WebDAV deletes a directory with all that is in it
        try:
            self.fs.rm_file(self._path(key))
        except ABSENT:
            raise KeyError(key) from None
        except Exception:
            # FTP and pyarrow's have no classes of their own for what is missing or a directory.
            if self._traits.flat or self._contains(key):
                raise
            raise KeyError(key) from None
        if self._traits.careful:
            self._prune(key)

    def _prune(self, key: str) -> None:
        """Remove the directories above `key` that it left empty, where the filesystem refuses to remove others."""
        for above in reversed(list(k.parents(key))[1:]):
            try:
                self.fs.rmdir(self._path(above))
            except Exception:  # not empty, or nothing the filesystem knows
                return

    def _remove_empty(self, path: str) -> bool:
        """Remove a directory of the filesystem and what is empty in it, each after an empty listing."""
        try:
            inside = self.fs.ls(path, detail=True)
        except Exception:
            return False
        if any(info["type"] != "directory" for info in inside):
            return False
        # Some list a directory as its own first child.
        below = [info["name"] for info in inside if info["name"].rstrip("/") != path.rstrip("/")]
        if False in [self._remove_empty(name) for name in below]:
            return False
        try:
            self.fs.rmdir(path)
        except Exception:
            return False
        return True

    def _delete_many(self, keys: Iterable[str]) -> None:
        names = list(dict.fromkeys(keys))
        if not names:
            return
        self._refuse_if_read_only(names[0])
        try:
            if isinstance(self._requests, S3Requests):
                self._delete_objects(names)
            elif self._traits.remote and self._traits.flat:
                self._delete_flat(names)
            else:
                self._delete_files(names)
        finally:
            self._changed(*names)

    def _delete_files(self, keys: Iterable[str]) -> None:
        for key in keys:
            try:
                self._erase(key)
            except KeyError:
                continue

    def _delete_flat(self, keys: Sequence[str]) -> None:
        plain = [key for key in keys if not set(key) & set("*?[]")]
        for at in range(0, len(plain), _BATCH_KEYS):
            self.fs.rm([self._path(key) for key in plain[at : at + _BATCH_KEYS]])
        for key in set(keys).difference(plain):
            self.fs.rm_file(self._path(key))

    def _delete_objects(self, keys: Sequence[str]) -> None:
        assert isinstance(self._requests, S3Requests)
        try:
            refused = self._requests.delete_many([self._name(key) for key in keys])
        except PermissionError as exc:
            exc.add_note(self._identity())
            raise
        finally:
            self._changed(*keys)
        for error in refused:
            problem = PermissionError(f"cannot delete {error.get('Key')!r} from {self}: {error.get('Message')}")
            problem.add_note(self._identity())
            raise problem

    def _rename(self, source: str, destination: str) -> None:
        self._refuse_if_read_only(source)
        if not (self._traits.remote and self._traits.flat):
            super()._rename(source, destination)
            if not self._traits.careful and not self._traits.flat:
                self._remove_empty(self._path(source))
            return
        moving = self._subtree(source)
        if not moving:
            raise KeyError(source)
        # All copied before the first is deleted: whatever fails, the source is whole.
        targets = [k.replace_root(entry.key, source, destination) for entry in moving]
        if isinstance(self._requests, S3Requests):
            pairs = [
                Pair(self._name(entry.key), self._name(key), entry.nbytes)
                for entry, key in zip(moving, targets, strict=True)
            ]
            self._requests.copy_many(pairs)
        else:
            paths = [self._path(entry.key) for entry in moving]
            self.fs.copy(paths, list(map(self._path, targets)), on_error="raise", batch_size=self.workers)
        self._changed(*targets)
        self._delete_many([entry.key for entry in moving])

    def _copier(self, source: Driver) -> Copier | None:
        if type(source) is not type(self):
            return None
        requests, src_requests, src_name = self._requests, source._requests, source._name
        if not (isinstance(requests, S3Requests) and isinstance(src_requests, S3Requests)):
            return None
        if not (self.capabilities.writable and requests.shares_service(src_requests)):
            return None

        def copy(pairs: Sequence[Pair]) -> Iterator[int | None]:
            names = [Pair(src_name(key), self._name(dest_key), nbytes) for key, dest_key, nbytes in pairs]
            try:
                return iter(requests.copy_from(src_requests, names))
            finally:
                self._changed(*(pair.dest_key for pair in pairs))

        return copy

    def _subtree(self, path: str) -> list[Entry]:
        """Return the value at a path and those below it. On S3, one request if 1,000 names begin so at the most."""
        if isinstance(self._requests, S3Requests):
            page = next(self._pages(path, path), None)
            if page is not None and not page.get("IsTruncated"):
                found = [(self._object_key(item), item) for item in page.get("Contents", ())]
                return [
                    Entry(key, int(item["Size"]))
                    for key, item in found
                    if key and (key == self._name(path) or k.is_below(key, self._name(path)))
                ]
        below = list(self._details(path))
        return below if not path or not self._contains(path) else [*below, self._entry(path)]

    def _is_occupied(self, path: str) -> bool:
        if not path or not isinstance(self._requests, S3Requests):
            return super()._is_occupied(path)
        page = next(self._pages(path, path), None) or {}
        name = self._name(path)
        keys = [self._object_key(item) for item in page.get("Contents", ())]
        if any(key == name or k.is_below(key, name) for key in keys):
            return True
        return bool(page.get("IsTruncated")) and super()._is_occupied(path)

    def _rmdir(self, path: str) -> None:
        self._refuse_if_read_only(path)
        super()._rmdir(path)
        if self._is_unsafe(path):
            return  # nothing can be there
        if not (self._traits.careful or self._traits.flat) and not (path and self._contains(path)):
            for info in self._infos(path) if not path else [{"name": self._path(path), "type": "directory"}]:
                if info["type"] == "directory":
                    self._remove_empty(info["name"])
