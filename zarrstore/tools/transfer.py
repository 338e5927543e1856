"""One batch of a copy: what runs in a thread, in another process or on another machine."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from zarrstore.base import Store
from zarrstore.errors import ClosedStoreError, ReadOnlyError, UnsupportedOperation

__all__ = ["Moved", "copy_batch", "read_batch", "write_batch"]

#: Errors of the whole store: the next key would fail as well.
_HOPELESS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})

#: Source key and destination key.
Pair = tuple[str, str]


@dataclass
class Moved:
    """What came of a batch.

    Parameters
    ----------
    done : list of str
        Destination keys that were written.
    nbytes : int, bytes
        Of their values.
    errors : dict of str to str
        Source keys that could not be copied, and why.
    """

    done: list[str] = field(default_factory=list)
    nbytes: int = 0
    errors: dict[str, str] = field(default_factory=dict)


def copy_batch(source: Store, dest: Store, pairs: Sequence[Pair], verify: bool, flush: bool) -> Moved:
    """Copy the values of `pairs`; an error of one key spares the others, an error of the whole store is raised.

    Notes
    -----
    Values stream from the one batch into the other, so memory is what `source` fetches ahead and `dest` gathers.
    Copying again what was copied before does no harm. Keys were judged when the copy was planned, so the drivers are
    spoken to: for values of 1 KB a second judgement would be a tenth of the work.
    """
    moved = Moved()
    digests: dict[str, bytes] = {}

    def stream(wanted: Sequence[Pair]) -> Iterator[tuple[str, bytes]]:
        read: Callable[[str], bytes] = source._get
        if source.capabilities.concurrent:
            read = source._get_many([key for key, _ in wanted]).__getitem__
        for key, dest_key in wanted:
            try:
                value = read(key)
            except KeyError:
                moved.errors[key] = "it vanished while the copy ran"
                continue
            except Exception as exc:
                moved.errors[key] = _why(exc)
                continue
            if verify:
                digests[dest_key] = hashlib.sha256(value).digest()
            moved.nbytes += len(value)
            moved.done.append(dest_key)
            yield dest_key, value

    try:
        dest._set_many(stream(pairs))
    except Exception as exc:
        _raise_if_hopeless(exc)
        # Which of them failed, the batch does not say: once more, each by itself.
        moved = Moved()
        for pair in pairs:
            before = moved.nbytes
            try:
                dest._set_many(stream([pair]))
            except Exception as exc:
                _raise_if_hopeless(exc)
                moved.errors[pair[0]] = _why(exc)
                moved.nbytes = before
                if moved.done and moved.done[-1] == pair[1]:
                    moved.done.pop()
    if flush:
        dest.flush()
    if verify:
        _verify(dest, digests, {dest_key: key for key, dest_key in pairs}, moved)
    return moved


def _verify(dest: Store, digests: dict[str, bytes], names: dict[str, str], moved: Moved) -> None:
    """Read back what was written; what differs was not copied."""
    found = dest.getitems(digests)
    for dest_key, digest in digests.items():
        value = found.get(dest_key)
        if value is None or hashlib.sha256(value).digest() != digest:
            why = "it is gone again" if value is None else "it reads back as something else"
            moved.errors[names[dest_key]] = why
            if dest_key in moved.done:
                moved.done.remove(dest_key)


def read_batch(source: Store, pairs: Sequence[Pair]) -> tuple[dict[str, bytes], dict[str, str]]:
    """Return values by destination key and errors by source key, for a destination that only one process may write."""
    values: dict[str, bytes] = {}
    errors: dict[str, str] = {}
    found = source.getitems([key for key, _ in pairs])
    for key, dest_key in pairs:
        try:
            values[dest_key] = found[key]
        except KeyError:
            errors[key] = "it vanished while the copy ran"
        except Exception as exc:
            errors[key] = _why(exc)
    return values, errors


def write_batch(dest: Store, values: dict[str, bytes], verify: bool, flush: bool) -> Moved:
    """Write values that were read elsewhere."""
    from zarrstore.adapt import as_store

    return copy_batch(as_store(values), dest, [(key, key) for key in values], verify, flush)


def _why(exc: Exception) -> str:
    return str(exc) or type(exc).__name__


def _raise_if_hopeless(exc: Exception) -> None:
    if isinstance(exc, ReadOnlyError | UnsupportedOperation | ClosedStoreError):
        raise exc
    if isinstance(exc, OSError) and exc.errno in _HOPELESS:
        raise exc
