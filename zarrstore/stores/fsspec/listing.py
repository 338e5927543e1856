"""What lies below a path of a filesystem, each protocol asked in the way that leaves nothing out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from zarrstore import keys as k
from zarrstore.answers import md5_of
from zarrstore.base import Entry
from zarrstore.errors import InvalidKeyError, UnsupportedOperation
from zarrstore.stores.fsspec import filesystems
from zarrstore.stores.fsspec.place import ATTEMPTS
from zarrstore.stores.fsspec.reading import Reading, described
from zarrstore.stores.fsspec.requests import S3Requests

__all__ = ["Listing"]


class Listing(Reading):
    """The driver methods that list: by pages of S3, else by `find` where it is the filesystem's own, else by `ls`."""

    def _keys(self, path: str) -> Iterator[str]:
        return (entry.key for entry in self._details(path))

    def _details(self, path: str) -> Iterator[Entry]:
        self._refuse_unlistable()
        return self._objects(path) if isinstance(self._requests, S3Requests) else self._files(path)

    def _refuse_unlistable(self) -> None:
        if not self.capabilities.listable:
            raise UnsupportedOperation("be listed", self, "a web server has no listing that can be relied on")

    def _objects(self, path: str) -> Iterator[Entry]:
        for page in self._pages(path, k.prefix(path)):
            for item in page.get("Contents", ()):
                if key := self._object_key(item):
                    tag, time = str(item.get("ETag", "")), item.get("LastModified")
                    modified = -1.0 if time is None else time.timestamp()
                    yield Entry(key, int(item["Size"]), tag.strip('"'), md5_of(tag), modified)

    def _object_key(self, item: Mapping[str, Any]) -> str:
        assert isinstance(self._requests, S3Requests)
        return self._requests.key_of(item["Key"])

    def _pages(self, path: str, prefix: str, delimiter: str = "", limit: int = 1000) -> Iterator[Mapping[str, Any]]:
        assert isinstance(self._requests, S3Requests)
        try:
            yield from self._requests.pages(self._name(prefix), delimiter, limit)
        except Exception as exc:
            error = self._error(path, exc)
            if not isinstance(error, KeyError):
                raise error  # noqa: B904 - it has its cause

    def _files(self, path: str) -> Iterator[Entry]:
        if filesystems.lists_whole(self.fs):
            found = self._listing("find", path, detail=True)
            infos: Iterable[Any] = found.values() if isinstance(found, dict) else ()
        else:
            infos = self._walk(path)
        for info in infos:
            key = self._key(info["name"])
            if info["type"] != "directory" and k.is_below(key, path):
                yield described(key, info)

    def _walk(self, path: str) -> Iterator[dict[str, Any]]:
        waiting = [path]
        while waiting:
            at = waiting.pop()
            for info in self._infos(at):
                if info["type"] != "directory":
                    yield info
                elif child := k.child(info["name"][len(self._lead) :], at):
                    waiting.append(k.join(at, child))

    def _infos(self, path: str) -> list[dict[str, Any]]:
        infos = list(self._listing("ls", path, detail=True))
        # FTP lists a file as its own only child.
        if (
            path
            and len(infos) == 1
            and infos[0]["name"] == f"{self._path(path)}/{k.name(path)}"
            and self._contains(path)
        ):
            return []
        return infos

    def _listing(self, method: str, path: str, **options: Any) -> Iterable[Any]:
        """Return what the filesystem lists at a path; nothing if nothing is there."""
        if self._is_deep_and_missing(path):
            return ()
        for attempt in range(ATTEMPTS):
            try:
                found: Iterable[Any] = getattr(self.fs, method)(self._path(path), **options)
                return found
            except InvalidKeyError:
                return ()
            except (KeyError, RuntimeError) as exc:
                # fsspec's memory trips over what another thread sets or deletes meanwhile; that is no absence.
                if attempt == ATTEMPTS - 1 or isinstance(exc, RecursionError):
                    raise self._error(path, exc)  # noqa: B904 - it has its cause
            except Exception as exc:
                error = self._error(path, exc)
                # FTP has no class of its own for what is missing.
                if isinstance(error, KeyError) or self._is_missing(self._path(path)):
                    return ()
                raise error  # noqa: B904 - it has its cause
        raise AssertionError

    def _listdir(self, path: str) -> Iterable[str]:
        return (name for name, _ in self._list_children(path))

    def _list_children(self, path: str) -> Iterable[tuple[str, bool]]:
        self._refuse_unlistable()
        children = self._object_names if isinstance(self._requests, S3Requests) else self._file_names
        return children(path).items()

    def _object_names(self, path: str) -> dict[str, bool]:
        """Return the names of values and of what has keys below it, and whether it has."""
        found: dict[str, bool] = {}
        assert isinstance(self._requests, S3Requests)
        for page in self._pages(path, k.prefix(path), "/"):
            names = [(item["Key"], False) for item in page.get("Contents", ())]
            names += [(item["Prefix"].removesuffix("/"), True) for item in page.get("CommonPrefixes", ())]
            for name, is_path in names:
                key = self._requests.key_of(name)
                if child := k.child(key, path) if key else "":
                    found[child] = is_path or found.get(child, False)
        return found

    def _file_names(self, path: str) -> dict[str, bool]:
        found: dict[str, bool] = {}
        for info in self._infos(path):
            name = k.child(info["name"][len(self._lead) :].rstrip("/"), path)
            if not name or not self._key(info["name"].rstrip("/")) or name in found:
                continue
            # Empty directories stay behind where they cannot be removed safely, and are no children.
            may_be_empty = info["type"] == "directory" and not (self._traits.careful or self._traits.flat)
            if not may_be_empty or self._is_filled(k.join(path, name)):
                # On some, a value and a directory have one name.
                found[name] = self._traits.flat or not self._traits.refuses or info["type"] == "directory"
        return found

    def _is_filled(self, path: str) -> bool:
        return next(self._files(path), None) is not None

    def _getsize(self, path: str) -> int:
        if path:
            try:
                return self._nbytes(path)
            except KeyError:
                pass
        if not self.capabilities.listable:
            return -1  # whether values lie below it, nobody can tell
        if isinstance(self._requests, S3Requests):
            pages = self._pages(path, k.prefix(path), "/")
            return sum(
                int(item["Size"]) for page in pages for item in page.get("Contents", ()) if self._object_key(item)
            )
        sizes = [info["size"] for info in self._infos(path) if info["type"] == "file"]
        return -1 if None in sizes else sum(sizes)
