"""An obstore store as a mapping, through obstore's own synchronous calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from zarrstore import keys as k
from zarrstore.answers import md5_of
from zarrstore.base import Entry
from zarrstore.errors import InvalidKeyError, StoreReadError
from zarrstore.optional import require
from zarrstore.spans import ATTEMPTS
from zarrstore.stores._files import location
from zarrstore.stores._objects import Objects, status_of, unopened
from zarrstore.urls import fits_xml, without_secrets

__all__ = ["ObstoreStore"]

#: Keys of one request to delete: what S3 takes.
_DELETES = 1000
#: Names on one page of a listing.
_PAGE = 1000
#: Encodings that leave the bytes of a value as they are.
_PLAIN = frozenset({"", "identity", "aws-chunked"})


class ObstoreStore(Objects):
    """Keep each value as one object of an obstore store: S3, Google Cloud, Azure, HTTP, local files or memory.

    Parameters
    ----------
    store : obstore store
        ``obstore.store.S3Store(...)`` and the like; its ``prefix`` is the root.
    missing_is : sequence of exception classes, optional
        What else means that a key is absent. S3 without the permission to list answers 403 for absence:
        ``missing_is=(obstore.exceptions.PermissionDeniedError,)``.
    workers : int, default 64
        Requests in flight at a time in a batch.

    Raises
    ------
    MissingDependencyError
        obstore is not installed.

    Notes
    -----
    Cost, in requests: get, set, part, `in` 1 (an empty value, and a part that begins behind the end 2); `del` 2, for
    most services do not tell whether anything was there; `delitems` and `rmdir` 1 per 1,000 keys; `listdir` 1 per 1,000
    children; `rename` 1 per key, copied by the server, and those to list and to delete; `copy_store` within one bucket
    1 per key. obstore makes several attempts for up to 3 minutes before it gives up: ``retry_config`` shortens that.

    A value of a server is asked for as the range from its start, for only then does obstore check the answer; a server
    without ranges is asked twice more. An answer that is packed or has another length than it tells raises
    StoreReadError.

    Threads: safe; those of obstore do not survive a fork. Processes: as the service. Pickles where the obstore store
    does (not memory), secrets included. Names that obstore refuses (control characters; on local files those that end
    in ``#`` and digits) raise InvalidKeyError. On local files, ``LocalStore(..., automatic_cleanup=True)`` removes
    directories that a delete empties. Source: this package.

    Examples
    --------
    >>> import obstore
    >>> store = ObstoreStore(obstore.store.MemoryStore())
    >>> store["foo/0.0"] = b"data"
    >>> store["foo/0.0"], store.listdir("foo"), store.getrange("foo/0.0", 1, 3)
    (b'data', ['0.0'], b'at')
    """

    def __init__(self, store: Any, missing_is: Sequence[type[Exception]] = (), workers: int = 64) -> None:
        self._obstore = require("obstore", extra="obstore", feature="ObstoreStore")
        kind = type(store).__name__
        absent: tuple[type[Exception], ...] = (FileNotFoundError, NotADirectoryError, IsADirectoryError, *missing_is)
        super().__init__(absent, kind == "LocalStore", kind != "MemoryStore", workers)
        self.copies = self._rename_checks_source = not self.capabilities.hierarchical
        self._root = str(store.prefix) if kind == "LocalStore" and store.prefix else None
        self._over_network = kind not in ("LocalStore", "MemoryStore")
        # Azure's listings begin at the beginning, and those of directory buckets are in no order.
        config = dict(getattr(store, "config", None) or {})
        is_ordered = str(config.get("s3_express", "")).lower() != "true"
        self._lists_from = kind in ("S3Store", "GCSStore") and is_ordered
        self.store = store
        self._whole: Any = None
        self.missing_is = tuple(missing_is)

    @classmethod
    def from_url(cls, url: str, missing_is: Sequence[type[Exception]] = (), **options: Any) -> ObstoreStore:
        """Open the store at a URL, as ``obstore.store.from_url`` does."""
        module = require("obstore.store", extra="obstore", feature="ObstoreStore")
        try:
            store = module.from_url(url, **options)
        except BaseException as exc:  # of an option that is none, obstore's core panics, which is no Exception
            if isinstance(exc, Exception) or type(exc).__name__ == "PanicException":
                hint = "; those of the connection, such as allow_http and timeout, go into client_options"
                raise unopened("obstore", url, options, exc, hint) from None
            raise
        return cls(store, missing_is)

    def __repr__(self) -> str:
        return f"ObstoreStore({without_secrets(repr(self.store))})"

    def _place(self) -> object:
        return self.store

    def _location(self, path: str) -> tuple[object, str]:
        if self._root is not None:
            return location(self._root, path)
        if not self._over_network:
            return id(self.store), path
        lead = str(getattr(self.store, "prefix", None) or "").strip("/")
        return (type(self.store), _settings(self.store)), k.join(lead, path)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.store, self.missing_is, self.workers)

    def _error(self, key: str, exc: Exception) -> Exception:
        # A name that obstore has for no object's.
        return KeyError(key) if _is_refused(exc) else super()._error(key, exc)

    def _identity(self) -> str:
        config = dict(getattr(self.store, "config", None) or {})
        place = f" at {without_secrets(str(config['endpoint']))}" if config.get("endpoint") else ""
        user = str(config.get("access_key_id") or config.get("account_name") or "")
        if str(config.get("skip_signature", "")).lower() == "true":
            asked = f"without credentials (skip_signature=True){place}"
        elif user:
            asked = f"with the key {user[:4]}...{place}"
        else:
            asked = f"with the credentials of the environment{place}"
        return (
            f"asked {asked}; access_key_id and secret_access_key, skip_signature and endpoint of the store change that"
        )

    def _get(self, key: str) -> bytes:
        if not self._over_network:
            return self._ask(key, lambda: bytes(self._obstore.get(self.store, key).bytes()))
        try:
            return bytes(self._checked(key, {"offset": 0}, slice(0, None)))
        except StoreReadError as exc:
            # An empty value has no first byte, and some servers have no ranges.
            cause = exc.__cause__
            if not (_is_out_of_range(exc) or "range" in str(cause).lower()):
                raise
            if _is_out_of_range(exc) and self._head(key).nbytes == 0:
                return b""
            value = self._ask(key, lambda: bytes(self._plain(key, self._obstore.get(self.store, key))))
            if len(value) != self._nbytes(key):
                raise
            return value

    def _buffer(self, key: str) -> memoryview | None:
        return self._checked(key, {"offset": 0}, slice(0, None)) if self._over_network else None

    def _plain(self, key: str, found: Any) -> memoryview:
        """Return the body of an answer that is not packed."""
        # To S3 an encoding is a remark of whoever stored the value, whose bytes are as they were stored.
        encoding = str(found.attributes.get("Content-Encoding", "")).lower()
        if type(self.store).__name__ == "HTTPStore" and encoding not in _PLAIN:
            raise StoreReadError(key, self, f"the server packed the answer ({encoding})", permanent=True)
        return memoryview(found.bytes())

    def _checked(self, key: str, wanted: Any, cut: slice) -> memoryview:
        """Return a part of a value, if it is all that `cut` takes of as many bytes as the value has."""

        def read() -> memoryview:
            found = self._obstore.get(self.store, key, options={"range": wanted})
            value = self._plain(key, found)
            start, stop, _ = cut.indices(int(found.meta["size"]))
            if tuple(found.range) != (start, stop) or len(value) != stop - start:
                raise OSError(f"{len(value):,} bytes came as {found.range}, and {start:,} to {stop:,} were asked for")
            return value

        return self._ask(key, read)

    def _nbytes(self, key: str) -> int:
        return self._entry(key).nbytes

    def _entry(self, key: str) -> Entry:
        entry = self._head(key)
        if entry.nbytes or not self._over_network:
            return entry
        # Servers that make their answers at each request tell 0 to HEAD, whatever they have.
        try:
            return Entry(key, len(self._checked(key, {"offset": 0}, slice(0, None))))
        except StoreReadError as exc:
            if _is_out_of_range(exc):
                return entry
            raise

    def _head(self, key: str) -> Entry:
        """Return what the server tells of a value without sending it."""
        if type(self.store).__name__ != "HTTPStore":
            return _described(self._ask(key, lambda: self._obstore.head(self.store, key)))._replace(key=key)

        def look() -> Entry:
            found = self._obstore.get(self.store, key, options={"head": True})
            encoding = str(found.attributes.get("Content-Encoding", "")).lower()
            if encoding not in _PLAIN:
                raise OSError(f"the server packed the answer ({encoding})")
            return _described(found.meta)._replace(key=key)

        return self._ask(key, look)

    def _get_range(self, key: str, start: int, stop: int | None) -> bytes:
        if stop is not None and stop <= start:
            self._nbytes(key)  # obstore refuses an empty range, of what is absent too
            return b""
        return self._part(key, {"offset": start} if stop is None else (start, stop), slice(start, stop))

    def _get_suffix(self, key: str, n: int) -> bytes:
        if n == 0:
            self._nbytes(key)  # as above
            return b""
        return self._part(key, {"suffix": n}, slice(-n, None))

    def _part(self, key: str, wanted: Any, cut: slice) -> bytes:
        for attempt in range(ATTEMPTS):
            try:
                return bytes(self._checked(key, wanted, cut))
            except StoreReadError as exc:
                # A range that begins at the end or behind it is an error there, and empty here. Where the value has
                # more bytes by now, it was replaced meanwhile.
                beyond = _is_out_of_range(exc)
                size = self._head(key).nbytes if beyond else self._nbytes(key)
                start, stop, _ = cut.indices(size)
                if start >= stop:
                    return b""
                if not beyond or attempt == ATTEMPTS - 1:
                    raise
        raise AssertionError("the last attempt returns or raises")

    # Listing -------------------------------------------------------------------------------------------------------

    def _keys(self, path: str) -> Iterator[str]:
        return (entry.key for entry in self._details(path))

    def _details(self, path: str) -> Iterator[Entry]:
        pages = iter(self._listed(path, lambda: self._obstore.list(self.store, prefix=path or None, chunk_size=_PAGE)))
        while page := self._listed(path, lambda: next(pages, [])):
            for found in page:
                if k.is_below(found["path"], path) and k.is_key(found["path"]):
                    yield _described(found)

    def _listed(self, path: str, act: Callable[[], Any]) -> Any:
        """Return what a listing gives, nothing if nothing is there."""
        try:
            return self._ask(path, act)
        except KeyError:
            return {}

    def _is_occupied(self, path: str) -> bool:
        """Tell whether a value or a directory is at `path`: by one page of the listing that begins just before it."""
        if not path or not self._lists_from:
            return super()._is_occupied(path)
        above, before = k.parent(path), path[:-1] + chr(ord(path[-1]) - 1)
        if not before.isprintable():
            return super()._is_occupied(path)
        pages = self._listed(
            path,
            lambda: iter(self._obstore.list(self.store, prefix=above or None, offset=f"{before}~", chunk_size=_PAGE)),
        )
        page = self._listed(path, lambda: next(iter(pages), []))
        if any(found["path"] == path or k.is_below(found["path"], path) for found in page):
            return True
        # What is below sorts behind names such as "path.x": a full page may end before it.
        is_behind = len(page) < _PAGE or page[-1]["path"] > k.prefix(path)
        return False if is_behind else super()._is_occupied(path)

    def _below(self, path: str) -> dict[str, Any]:
        found: dict[str, Any] = self._listed(
            path, lambda: self._obstore.list_with_delimiter(self.store, prefix=path or None)
        )
        return found

    def _children(self, path: str) -> Iterator[tuple[str, bool, bool]]:
        found = self._below(path)
        values = {k.child(item["path"], path) for item in found.get("objects", ())}
        paths = {k.child(at, path) for at in found.get("common_prefixes", ())}
        return ((name, name in values, name in paths) for name in values | paths if name and k.is_key(name))

    def _sizes(self, path: str) -> Iterable[int]:
        return (int(item["size"]) for item in self._below(path).get("objects", ()) if k.is_below(item["path"], path))

    # Writing -------------------------------------------------------------------------------------------------------

    def _copy(self, source: str, destination: str) -> None:
        try:
            self._ask(source, lambda: self._obstore.copy(self.store, source, destination))
        except StoreReadError:
            # Of a name that is too long to be there, Ceph's gateway says 500 and not 404.
            if self._contains(source):
                raise
            raise KeyError(source) from None

    def _copying_from(self, source: Objects) -> Callable[[str, str], None] | None:
        store: Any = self.store
        src_store: Any = source._place()
        if src_store is store:
            return self._copy
        settings = _settings(store)
        if not self._over_network or type(src_store) is not type(store) or _settings(src_store) != settings:
            return None
        if str(settings.get("config", {}).get("skip_signature", "")).lower() == "true":
            return None  # to sign, obstore would look for credentials elsewhere
        # obstore copies within one store, so a store without a prefix copies from prefix to prefix of one bucket.
        if self._whole is None:
            self._whole = type(store)(**settings)
        whole, lead, src_lead = self._whole, store.prefix or "", src_store.prefix or ""
        try:
            services = {self._service(each) for each in (whole, store, src_store)}
        except Exception:  # it has no credentials, or signs nothing
            return None
        if len(services) > 1:
            return None
        return lambda key, dest_key: self._obstore.copy(whole, k.join(src_lead, key), k.join(lead, dest_key))

    def _service(self, store: Any) -> object:
        """Return the server that a store asks, and as whom; what it took from the environment counts too."""
        from datetime import timedelta
        from urllib.parse import parse_qs, urlsplit

        url = urlsplit(self._obstore.sign(store, "GET", "x", timedelta(minutes=1)))
        return url.scheme, url.netloc, str(parse_qs(url.query).get("X-Amz-Credential"))

    def _put(self, key: str, value: bytes) -> None:
        if not fits_xml(key):
            raise InvalidKeyError(key, "obstore deletes by requests in XML, which cannot say it")
        try:
            self._obstore.put(self.store, key, value)
        except Exception as exc:
            if _is_refused(exc):
                raise InvalidKeyError(key, f"obstore cannot hold it: {str(exc).partition(chr(10))[0]}") from exc
            if not self._discard_empty(key):
                raise
            self._obstore.put(self.store, key, value)

    def _remove(self, key: str) -> None:
        try:
            self._obstore.delete(self.store, key)
        except TypeError:  # so it says of a name that it refuses
            return
        except Exception as exc:
            if not isinstance(self._error(key, exc), KeyError):
                raise

    def _delete_many(self, keys: Iterable[str]) -> None:
        doomed = list(dict.fromkeys(keys))
        for at in range(0, len(doomed), _DELETES):
            batch = doomed[at : at + _DELETES]
            try:
                self._obstore.delete(self.store, batch)
            except Exception as exc:
                # Local files stop at the first that is missing, and a refused name (a TypeError) refuses them all.
                if not isinstance(exc, TypeError) and not isinstance(self._error(batch[0], exc), KeyError):
                    raise
                super()._delete_many(batch)


def _settings(store: Any) -> dict[str, Any]:
    """Return all that makes an obstore store but its prefix."""
    names = ("config", "client_options", "retry_config", "credential_provider")
    return {name: value for name in names if (value := getattr(store, name, None)) is not None}


def _is_out_of_range(exc: StoreReadError) -> bool:
    """Tell whether the server answered that the range begins behind the end."""
    return isinstance(exc.__cause__, Exception) and status_of(exc.__cause__) == 416


def _described(found: Mapping[str, Any]) -> Entry:
    """Return the entry of an object that obstore describes."""
    tag, time = str(found.get("e_tag") or ""), found.get("last_modified")
    identity = tag or f"{time}-{found['size']}"
    modified = -1.0 if time is None else time.timestamp()
    return Entry(found["path"], int(found["size"]), identity.strip('"'), md5_of(tag), modified)


def _is_refused(exc: Exception) -> bool:
    text = str(exc)
    return (isinstance(exc, ValueError) and "parse path" in text) or "Invalid path" in text or "InvalidPath" in text
