"""Where the values of an FSStore are: its filesystem, the paths of keys, and what a failure there means."""

from __future__ import annotations

import errno
import os
import pickle
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from zarrstore import keys as k
from zarrstore.allowance import Sizes
from zarrstore.answers import Answer, Unusable, ValueReader
from zarrstore.base import Store
from zarrstore.errors import InvalidKeyError, ReadOnlyError, StoreReadError
from zarrstore.stores._files import location
from zarrstore.stores.fsspec import filesystems
from zarrstore.stores.fsspec.options import refusal
from zarrstore.stores.fsspec.requests import S3Requests, WebRequests
from zarrstore.stores.fsspec.traits import S3, WEB, traits_of
from zarrstore.threads import separate_at_fork
from zarrstore.urls import without_secrets

__all__ = ["ABSENT", "ATTEMPTS", "Place", "temporary"]

#: What says that nothing is there; whatever else is raised says nothing about it.
ABSENT: tuple[type[Exception], ...] = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
#: How often a file is written whose directory another thread removes meanwhile.
ATTEMPTS = 5
#: Filesystems that a forked child has from its parent.
_of_parents: list[Any] = []


class Place(Store):
    """A root on a filesystem, and how it is asked.

    Parameters
    ----------
    fs : fsspec.spec.AbstractFileSystem
        The filesystem.
    path : str
        The root on it.
    mode : {'w', 'r'}
        Whether it is written.
    normalize_keys : bool
        Lower-case every key.
    missing_is : tuple of exception classes
        What else means that a key is absent.
    workers : int
        Requests in flight at a time.
    """

    #: As the caller gave it.
    url: str

    def __init__(
        self,
        fs: Any,
        path: str,
        mode: str,
        normalize_keys: bool,
        missing_is: tuple[type[Exception], ...],
        workers: int,
    ) -> None:
        self.mode = mode
        self.normalize_keys = self._aliases = normalize_keys
        self.missing_is = missing_is
        self.workers = self._in_flight = workers
        self._value_sizes = Sizes()
        self._pid = os.getpid()
        self._root = path
        # Asked from the filesystem, for the root of some is "" and of others "/".
        self._lead: str = fs._strip_protocol(f"{path.rstrip('/')}/x" if path else "x")[:-1]
        self._missing = (*ABSENT, *missing_is)
        self._traits = traits = traits_of(fs, mode)
        self._fs = self._adopted(fs)
        self.capabilities = replace(traits.capabilities, case_sensitive=not normalize_keys)
        self._rename_checks_source = traits.remote and traits.flat
        self._requests: S3Requests | WebRequests | None = None
        if traits.remote and traits.protocols <= S3 and hasattr(fs, "_call_s3"):
            self._requests = S3Requests(self._filesystem, self._lead, workers)
        elif traits.remote and traits.protocols <= WEB:
            self._requests = WebRequests(self._filesystem, self._lead, workers)
        self._reader = None if self._requests is None else ValueReader(self._ask, self._refusal, self._read_error)

    def _place(self) -> object:
        return self._lead, filesystems.unlocked(self._fs), self.normalize_keys

    def _location(self, path: str) -> tuple[object, str]:
        place = k.join(self._lead.rstrip("/"), path)
        if self._traits.local:
            return location(place)
        return filesystems.unlocked(self._fs), place.lstrip("/")

    @property
    def fs(self) -> Any:
        """The filesystem."""
        if self._pid != os.getpid():
            # Kept: its end would close the connections of the parent, over TLS with a farewell that its server reads.
            _of_parents.append(self._fs)
            # An asynchronous filesystem holds a thread, which a forked child has not; unpickling makes a new one.
            self._fs, self._pid = self._adopted(pickle.loads(pickle.dumps(self._fs))), os.getpid()
        return self._fs

    def _filesystem(self) -> Any:
        return self.fs

    def _adopted(self, fs: Any) -> Any:
        """Return the twin of a filesystem that this store works with."""
        twin = filesystems.uncached(filesystems.unlocked(fs))
        separate_at_fork(getattr(twin, "loop", None))
        return filesystems.locked(twin) if self._traits.serial else twin

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _pid=os.getpid())
        self._fs = self._adopted(state["_fs"])

    def _path(self, key: str) -> str:
        """Return where the value of a key, or a directory, is on the filesystem."""
        if not key:
            return str(self._root)
        if self._is_unsafe(key):
            raise InvalidKeyError(key, f"{self} does not keep it apart from other names")
        return self._lead + (key.lower() if self.normalize_keys else key)

    def _key(self, path: str) -> str:
        """Return the key of what is at a place of the filesystem; the empty string, below nothing, if it has none."""
        key = path[len(self._lead) :] if path.startswith(self._lead) else ""
        return key if k.is_key(key) and not self._is_unsafe(key) else ""

    def _is_unsafe(self, key: str) -> bool:
        """Tell whether the filesystem would take a key for another, so that nothing can have it."""
        return self._traits.unsafe is not None and self._traits.unsafe.search(key) is not None

    def _folded_key(self, key: str) -> str:
        return self._name(key)

    def _name(self, key: str) -> str:
        return key.lower() if self.normalize_keys else key

    def _error(self, key: str, exc: BaseException) -> Exception:
        """Return what to raise for a failed read: KeyError if it says that nothing is there."""
        if isinstance(exc, ABSENT) and (failure := _failure_behind(exc)) is not None:
            exc = failure
        if isinstance(exc, (*self._missing, InvalidKeyError)) or self._is_too_long(key, exc):
            return KeyError(key)
        if isinstance(exc, Unusable):
            return self._read_error(key, str(exc))
        if (refused := refusal(self.url, getattr(self.fs, "storage_options", None) or {}, exc)) is not None:
            return refused
        reason = without_secrets(f"{type(exc).__name__}: {exc}")
        if isinstance(exc, PermissionError):
            reason += f"; {self._identity()}"
        error = StoreReadError(key, self, reason, permanent=isinstance(exc, PermissionError))
        error.__cause__ = exc
        return error

    def _read_error(self, key: str, reason: str) -> StoreReadError:
        return StoreReadError(key, self, without_secrets(reason), permanent=True)

    def _identity(self) -> str:
        """Say who asked, and which options change that; nothing secret."""
        return filesystems.identity(self.fs)

    def _ask(self, method: str, key: str, headers: Mapping[str, str]) -> Answer:
        assert self._requests is not None
        try:
            return self._requests.ask(method, self._name(key), headers)
        except Exception as exc:
            raise self._error(key, exc)  # noqa: B904 - it has its cause

    def _refusal(self, key: str, answer: Answer) -> Exception:
        """Return the error for an answer whose status is no success."""
        kind = PermissionError if answer.status in (401, 403, 407) else OSError
        error = self._error(key, kind(f"the server answered {answer.status} {answer.reason}".rstrip()))
        if isinstance(error, StoreReadError) and 400 <= answer.status < 500 and answer.status not in (408, 425, 429):
            error.permanent = True
        return error

    def _is_too_long(self, key: str, exc: BaseException) -> bool:
        """Tell whether nothing can have this name: too long for the disk, or, on object stores, above 1,024 bytes."""
        if getattr(exc, "errno", None) == errno.ENAMETOOLONG:
            return True
        if self._traits.flat:
            return len((self._lead + key).partition("/")[2].encode()) > 1024
        # SFTP has no code for it. No file system keeps a name of more than 255 characters.
        return not self._traits.remote and any(len(name) > 255 for name in k.segments(key))

    def _refuse_if_read_only(self, what: str) -> None:
        if not self.capabilities.writable:
            raise ReadOnlyError(what, self)


def temporary() -> str:
    return f"{k.RESERVED}-{os.getpid()}-{threading.get_ident()}-{os.urandom(4).hex()}"


def _failure_behind(exc: BaseException) -> BaseException | None:
    """Return the failure that a filesystem took for absence; None if nothing says that it was one.

    Notes
    -----
    fsspec's filesystem of the web raises FileNotFoundError whatever keeps it from asking, as a server that is down;
    the cause of that error is what happened.
    """
    cause = exc.__cause__
    if cause is None or isinstance(cause, ABSENT):
        return None if cause is None else _failure_behind(cause)
    status = getattr(cause, "status", None)
    if isinstance(status, int):
        return None if status in (404, 410) else cause
    is_of_network = isinstance(cause, OSError) or type(cause).__module__.startswith("aiohttp")
    return cause if is_of_network else None
