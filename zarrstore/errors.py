"""Every exception that zarrstore raises on its own account.

::

    ZarrStoreError
    ├─ InvalidKeyError       KeyError, ValueError    a name that is not a key
    ├─ InvalidPathError      ValueError              a path with '.' or '..' in it
    ├─ ConflictError         KeyError                a value on a directory, or below a value
    ├─ ReadOnlyError         PermissionError         a write to what cannot be written
    ├─ UnsupportedOperation  NotImplementedError     the backend cannot do this at all
    ├─ ClosedStoreError      ValueError              used after close()
    ├─ DestinationExistsError FileExistsError        rename or copy onto something
    ├─ RenameError           ValueError              rename into itself
    ├─ OverlapError          ValueError              what a verb writes lies where it reads
    ├─ ContainsArrayError    ValueError              an array stands where one is to be created
    ├─ ContainsGroupError    ValueError              a group stands there
    ├─ MetadataError         ValueError              a document that is not Zarr metadata
    │  └─ NotRepresentableError KeyError             an array that the other version of Zarr has no document for
    ├─ DamagedStoreError     OSError                 a file that is damaged, truncated or foreign
    ├─ LockedStoreError      BlockingIOError         another writer has the file
    ├─ ValueTooLargeError    ValueError              a value above what the backend or the caller allows
    ├─ StoreReadError        OSError                 a read failed; absence was *not* established
    ├─ RootIsFileError       ValueError              a directory is wanted where a file is
    ├─ StoreNotFoundError    FileNotFoundError       open_store found nothing to open
    ├─ NodeNotFoundError     KeyError                a verb found nothing at its path
    └─ MissingDependencyError ImportError            an optional package is not installed

Each refines the builtin that callers already catch, carries its parts as fields, and pickles. Only true absence
is a plain `KeyError`.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "ClosedStoreError",
    "ClusterError",
    "ConflictError",
    "ContainsArrayError",
    "ContainsGroupError",
    "DamagedStoreError",
    "DestinationExistsError",
    "InvalidKeyError",
    "InvalidPathError",
    "LockedStoreError",
    "MetadataError",
    "MissingDependencyError",
    "NodeNotFoundError",
    "NotRepresentableError",
    "OverlapError",
    "ReadOnlyError",
    "RenameError",
    "RootIsFileError",
    "StoreNotFoundError",
    "StoreReadError",
    "UnsupportedOperation",
    "ValueTooLargeError",
    "ZarrStoreError",
]


def _revive(cls: type[ZarrStoreError], message: str, fields: dict[str, Any]) -> ZarrStoreError:
    exc = cls.__new__(cls, message)
    exc.args = (message,)
    exc.__dict__.update(fields)
    return exc


class ZarrStoreError(Exception):
    """Base of all errors of this package; `message` is the whole sentence, the parts are fields.

    Examples
    --------
    >>> raise ReadOnlyError("foo/0.0", "ZipStore('a.zip', mode='r')")
    Traceback (most recent call last):
    zarrstore.errors.ReadOnlyError: cannot write 'foo/0.0': ZipStore('a.zip', mode='r') is read-only
    """

    def __init__(self, message: str, **fields: Any) -> None:
        # Not super().__init__: OSError would take two arguments for errno and strerror, and drop the fields.
        self.args = (message,)
        self.__dict__.update(fields)

    @property
    def message(self) -> str:
        """The whole sentence."""
        return str(self.args[0])

    def __str__(self) -> str:
        # Not inherited: KeyError.__str__ gives the repr of the sentence, OSError.__str__ may look for errno.
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _revive, (type(self), self.message, dict(self.__dict__))


class InvalidKeyError(ZarrStoreError, KeyError, ValueError):
    """A name that no store can hold. Fields: `key`, `reason`."""

    key: object
    reason: str

    def __init__(self, key: object, reason: str) -> None:
        super().__init__(f"invalid key {key!r}: {reason}", key=key, reason=reason)


class InvalidPathError(ZarrStoreError, ValueError):
    """A path that leads elsewhere. Fields: `path`, `reason`."""

    path: object
    reason: str

    def __init__(self, path: object, reason: str) -> None:
        super().__init__(f"invalid path {path!r}: {reason}", path=path, reason=reason)


class ConflictError(ZarrStoreError, KeyError):
    """A value would stand on a directory, or below another value. Fields: `key`, `store`, `other`."""

    key: str
    store: str
    other: str

    def __init__(self, key: str, store: object, other: str) -> None:
        if other.startswith(key + "/"):
            why = f"{store} holds {other!r} below it; rmdir({key!r}) first"
        else:
            why = f"{store} holds a value at {other!r}; delete it first"
        super().__init__(f"cannot set {key!r}: {why}", key=key, store=str(store), other=other)


class ReadOnlyError(ZarrStoreError, PermissionError):
    """A write to what cannot be written. Fields: `what`, `store`."""

    what: str
    store: str

    def __init__(self, what: str, store: object) -> None:
        super().__init__(f"cannot write {what!r}: {store} is read-only", what=what, store=str(store))


class UnsupportedOperation(ZarrStoreError, NotImplementedError):
    """The backend cannot do this at all. Fields: `operation`, `store`, `way_out`."""

    operation: str
    store: str
    way_out: str

    def __init__(self, operation: str, store: object, way_out: str = "") -> None:
        tail = f"; {way_out}" if way_out else ""
        super().__init__(f"{store} cannot {operation}{tail}", operation=operation, store=str(store), way_out=way_out)


class ClosedStoreError(ZarrStoreError, ValueError):
    """The store was closed. Field: `store`."""

    store: str

    def __init__(self, store: object) -> None:
        super().__init__(f"{store} is closed; open it again", store=str(store))


class DestinationExistsError(ZarrStoreError, FileExistsError):
    """Something stands at the destination already. Fields: `source`, `destination`."""

    source: str
    destination: str

    def __init__(self, source: str, destination: str, way_out: str = "remove it first") -> None:
        super().__init__(
            f"cannot move or copy {source!r} to {destination!r}: something is there; {way_out}",
            source=source,
            destination=destination,
        )


class RenameError(ZarrStoreError, ValueError):
    """A node cannot be moved below itself. Fields: `source`, `destination`."""

    source: str
    destination: str

    def __init__(self, source: str, destination: str) -> None:
        super().__init__(
            f"cannot rename {source!r} to {destination!r}: the destination lies within the source",
            source=source,
            destination=destination,
        )


class OverlapError(ZarrStoreError, ValueError):
    """What a verb is to write lies where it reads. Fields: `written`, `store`.

    Examples
    --------
    >>> raise OverlapError("'backup/0'", "DirectoryStore('d')", "leave it out")
    Traceback (most recent call last):
    zarrstore.errors.OverlapError: cannot write 'backup/0': it lies within DirectoryStore('d'), which is read; leave ...
    """

    written: str
    store: str

    def __init__(self, written: str, store: object, hint: str) -> None:
        super().__init__(
            f"cannot write {written}: it lies within {store}, which is read; {hint}", written=written, store=str(store)
        )


class ContainsArrayError(ZarrStoreError, ValueError):
    """An array stands at the path. Field: `path`."""

    path: str

    def __init__(self, path: str) -> None:
        super().__init__(f"path {path!r} contains an array; pass overwrite=True to replace it", path=path)


class ContainsGroupError(ZarrStoreError, ValueError):
    """A group stands at the path. Field: `path`."""

    path: str

    def __init__(self, path: str) -> None:
        super().__init__(f"path {path!r} contains a group; pass overwrite=True to replace it", path=path)


class MetadataError(ZarrStoreError, ValueError):
    r"""A document that is not Zarr metadata. Fields: `key`, `member` (or None), `reason`.

    Examples
    --------
    >>> raise MetadataError("foo/.zarray", "chunks", 'has 1 entry, "shape" has 2')
    Traceback (most recent call last):
    zarrstore.errors.MetadataError: 'foo/.zarray' is not Zarr metadata: "chunks" has 1 entry, "shape" has 2
    """

    key: str
    member: str | None
    reason: str

    def __init__(self, key: str, member: str | None, reason: str) -> None:
        where = f'"{member}" {reason}' if member else reason
        super().__init__(f"{key!r} is not Zarr metadata: {where}", key=key, member=member, reason=reason)


class NotRepresentableError(MetadataError, KeyError):
    """An array that the other version of Zarr has no document for. Fields: `key`, `member` (None), `reason`.

    A KeyError too, since the document does not exist in that version: Zarr's iteration over a group passes over it by
    name, where any other error would end the iteration.

    Examples
    --------
    >>> raise NotRepresentableError("a/.zarray", 2, "codec 'sharding_indexed': it has none")
    Traceback (most recent call last):
    zarrstore.errors.NotRepresentableError: 'a/.zarray' does not exist: version 2 cannot represent the array: ...
    """

    def __init__(self, key: str, version: int, reason: str) -> None:
        text = f"version {version} cannot represent the array: {reason}"
        ZarrStoreError.__init__(self, f"{key!r} does not exist: {text}", key=key, member=None, reason=text)


class DamagedStoreError(ZarrStoreError, OSError):
    """A file that is damaged, truncated or of another kind. Fields: `path`, `reason`, `way_out`."""

    path: str
    reason: str
    way_out: str

    def __init__(self, path: object, reason: str, way_out: str = "") -> None:
        tail = f"; {way_out}" if way_out else ""
        super().__init__(f"{str(path)!r} {reason}{tail}", path=str(path), reason=reason, way_out=way_out)


class LockedStoreError(ZarrStoreError, BlockingIOError):
    """Another writer has the file. Fields: `path`, `reason`."""

    path: str
    reason: str

    def __init__(self, path: object, reason: str) -> None:
        super().__init__(f"cannot open {str(path)!r} for writing: {reason}", path=str(path), reason=reason)


class ValueTooLargeError(ZarrStoreError, ValueError):
    """A value above what is allowed. Fields: `key`, `nbytes`, `limit` (both in bytes), `way_out`."""

    key: str
    nbytes: int
    limit: int

    def __init__(self, key: str, nbytes: int, limit: int, way_out: str = "") -> None:
        tail = f"; {way_out}" if way_out else ""
        super().__init__(
            f"value of {key!r} has {nbytes:,} bytes, and {limit:,} are allowed{tail}",
            key=key,
            nbytes=nbytes,
            limit=limit,
        )


class StoreReadError(ZarrStoreError, OSError):
    """A read failed and says nothing about absence: 403, 5xx, a time-out, a broken disk.

    Fields: `key`, `store`, `reason`, `permanent` (a second attempt would fail too: a permission, a request that is
    refused, an answer that proves nothing).
    """

    key: str
    store: str
    reason: str
    permanent: bool

    def __init__(self, key: str, store: object, reason: str, *, permanent: bool = False) -> None:
        super().__init__(
            f"cannot read {key!r} from {store}: {reason}",
            key=key,
            store=str(store),
            reason=reason,
            permanent=permanent,
        )


class StoreNotFoundError(ZarrStoreError, FileNotFoundError):
    """Nothing to open at the target. Fields: `target`, `looked_for`."""

    target: str
    looked_for: str

    def __init__(self, target: object, looked_for: str) -> None:
        super().__init__(
            f"no store at {str(target)!r}: looked for {looked_for}", target=str(target), looked_for=looked_for
        )


class NodeNotFoundError(ZarrStoreError, KeyError):
    """A verb found nothing at its path. Fields: `path`, `hint` (what is there instead, and near misses).

    Examples
    --------
    >>> raise NodeNotFoundError("tmperature", "array or group", "did you mean 'temperature'?")
    Traceback (most recent call last):
    zarrstore.errors.NodeNotFoundError: no array or group at 'tmperature': did you mean 'temperature'?
    """

    path: str
    hint: str

    def __init__(self, path: str, what: str = "", hint: str = "") -> None:
        place = repr(path) if path else "the root"
        tail = f": {hint}" if hint else ""
        super().__init__(f"{f'no {what}' if what else 'nothing'} at {place}{tail}", path=path, hint=hint)


class RootIsFileError(ZarrStoreError, ValueError):
    """A store wants a directory where a file is. Fields: `path`, `store`."""

    path: str
    store: str

    def __init__(self, path: object, store: str) -> None:
        super().__init__(
            f"cannot keep a {store} in {str(path)!r}: a file is there, not a directory; open_store opens files",
            path=str(path),
            store=store,
        )


class MissingDependencyError(ZarrStoreError, ImportError):
    """An optional package is not installed. Fields: `feature`, `package`, `extra`."""

    feature: str
    package: str
    extra: str

    def __init__(self, feature: str, package: str, extra: str) -> None:
        super().__init__(
            f"{feature} needs {package}: pip install zarrstore[{extra}]",
            feature=feature,
            package=package,
            extra=extra,
        )


class ClusterError(ZarrStoreError, RuntimeError):
    """Workers elsewhere cannot do the work. Fields: `reason`, `remedy`."""

    reason: str
    remedy: str

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"cannot work on this executor: {reason}; {remedy}", reason=reason, remedy=remedy)
