"""One batch of a copy: what runs in a thread, in another process or on another machine."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from zarrstore.allowance import BUDGET, allowed
from zarrstore.base import Store
from zarrstore.driver import Pair
from zarrstore.errors import ClosedStoreError, ReadOnlyError, UnsupportedOperation
from zarrstore.tools.holding import is_document
from zarrstore.values import sha256
from zarrstore.wrappers.base import Wrapper

__all__ = ["BatchOptions", "BatchResult", "copy_batch"]

#: Errors of the whole store: the next key would fail as well.
_HOPELESS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})


class BatchOptions(NamedTuple):
    """What to do besides copying.

    Parameters
    ----------
    verify : bool
        Read every value back and compare.
    digests : bool
        Return the SHA-256 of every value, for a journal.
    flush : bool
        Make the destination durable before the batch ends.
    optional : bool
        Whether a key may be absent at the source: then it counts as never written.
    nbytes : int, bytes
        What the source may fetch ahead.
    """

    verify: bool = False
    digests: bool = False
    flush: bool = False
    optional: bool = False
    nbytes: int = BUDGET


@dataclass
class BatchResult:
    """What became of a batch.

    Parameters
    ----------
    done : dict of str to str
        Source keys that were copied, each with the SHA-256 of its value if it was asked for, else ``""``.
    nbytes : int, bytes
        Total size of their values.
    largest : int, bytes
        Size of the largest chunk that was read; -1 if there was none.
    n_absent : int
        Optional keys that are not at the source.
    errors : dict of str to str
        Source keys that were not copied, and why.
    """

    done: dict[str, str] = field(default_factory=dict)
    nbytes: int = 0
    largest: int = -1
    n_absent: int = 0
    errors: dict[str, str] = field(default_factory=dict)


def copy_batch(source: Store, dest: Store, pairs: Sequence[Pair], options: BatchOptions) -> BatchResult:
    """Copy the values of `pairs`; an error of one key spares the others, an error of the whole store is raised.

    Notes
    -----
    Values stream from the one batch into the other, so memory is what `source` fetches ahead and `dest` gathers.
    A batch may be copied twice without harm. Keys were judged when the copy was planned, so the drivers are called: for
    values of 1 KB a second judgement would be a tenth of the work.
    """
    result = BatchResult()
    sizes: dict[str, int] = {}
    hashing = options.verify or options.digests

    def values(wanted: Sequence[Pair]) -> Iterator[tuple[str, bytes]]:
        read: Callable[[str], bytes] = source._get
        if source.capabilities.concurrent:
            # The batch was cut so that its values fit into the memory of the copy: they may come at once.
            with allowed(options.nbytes):
                read = source._get_many([pair.key for pair in wanted]).__getitem__
        for key, dest_key, _ in wanted:
            try:
                value = read(key)
            except Exception as exc:
                # Errors that refine KeyError tell of a value that is there and cannot be given.
                if type(exc) is not KeyError:
                    result.errors[key] = _reason(exc)
                elif options.optional:
                    result.n_absent += 1
                else:
                    result.errors[key] = "it vanished while the copy ran"
                continue
            sizes[key] = len(value)
            result.done[key] = sha256(value) if hashing else ""
            yield dest_key, value
            # The destination has taken it; the next value must not be read while this one is still held.
            del value

    if not hashing:
        pairs = _copy_past_python(source, dest, pairs, result, sizes)
    try:
        dest._set_many(values(pairs))
    except Exception as exc:
        _raise_if_hopeless(exc)
        # The batch does not tell which keys failed: each is copied again by itself.
        for pair in pairs:
            result.done.pop(pair.key, None)
            result.errors.pop(pair.key, None)
        result.n_absent = 0
        for pair in pairs:
            try:
                dest._set_many(values([pair]))
            except Exception as exc:
                _raise_if_hopeless(exc)
                result.done.pop(pair.key, None)
                result.errors[pair.key] = _reason(exc)
    if options.flush:
        dest.flush()
    if options.verify:
        _verify(dest, {pair.key: pair.dest_key for pair in pairs}, result, options.nbytes)
    result.nbytes = sum(sizes[key] for key in result.done)
    for key, size in sizes.items():
        if size > result.largest and not is_document(key):
            result.largest = size
    return result


def _copy_past_python(
    source: Store, dest: Store, pairs: Sequence[Pair], result: BatchResult, sizes: dict[str, int]
) -> Sequence[Pair]:
    """Copy what the two stores can copy without its bytes coming here; return what is left."""
    (src_inner, src_key), (dst_inner, dst_key) = _below_wrappers(source, "_get"), _below_wrappers(dest, "_set")
    copy = dst_inner._copier(src_inner)
    if copy is None:
        return pairs
    left: list[Pair] = []
    below = pairs
    if src_key is not _same or dst_key is not _same:
        below = [Pair(src_key(pair.key), dst_key(pair.dest_key), pair.nbytes) for pair in pairs]
    for pair, nbytes in zip(pairs, copy(below), strict=True):
        if nbytes is None and (source.capabilities.concurrent or dest.capabilities.concurrent):
            left.append(pair)
            continue
        if nbytes is None:
            # The ordinary way does it, or says what is wrong. It makes a missing directory: the next key finds it.
            try:
                dest._set(pair.dest_key, value := source._get(pair.key))
            except Exception:
                left.append(pair)
                continue
            nbytes = len(value)
        sizes[pair.key] = nbytes
        result.done[pair.key] = ""
    return left


def _below_wrappers(store: Store, method: str) -> tuple[Store, Callable[[str], str]]:
    """Return the store below wrappers that do not change what a method does, and what a key is called there."""
    changes: list[Callable[[str], str]] = []
    while isinstance(store, Wrapper):
        cls = type(store)
        if not cls.keeps_values and getattr(cls, method) is not getattr(Wrapper, method):
            break
        if cls._to_inner is not Wrapper._to_inner:
            changes.append(store._to_inner)
        store = store.inner

    def to_inner(key: str) -> str:
        for change in changes:
            key = change(key)
        return key

    return store, to_inner if changes else _same


def _same(key: str) -> str:
    return key


def _verify(dest: Store, dest_keys: dict[str, str], result: BatchResult, nbytes: int) -> None:
    """Read back what was written; a key whose value differs was not copied."""
    with allowed(nbytes):
        found = dest._get_many([dest_keys[key] for key in result.done])
    for key, digest in list(result.done.items()):
        try:
            same = sha256(found[dest_keys[key]]) == digest
            reason = "" if same else "it reads back as another value"
        except Exception as exc:
            is_absent = type(exc) is KeyError
            reason = "it was written, and is absent now" if is_absent else f"it cannot be read back: {_reason(exc)}"
        if reason:
            del result.done[key]
            result.errors[key] = reason


def _reason(exc: Exception) -> str:
    return str(exc) or type(exc).__name__


def _raise_if_hopeless(exc: Exception) -> None:
    if isinstance(exc, ReadOnlyError | UnsupportedOperation | ClosedStoreError):
        raise exc
    if isinstance(exc, OSError) and exc.errno in _HOPELESS:
        raise exc
