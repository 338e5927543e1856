"""Documents written and others deleted, in an order that shows a whole hierarchy at every moment; or all put back."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from itertools import groupby

from zarrstore import keys as k
from zarrstore.base import Store
from zarrstore.metadata import documents
from zarrstore.tools.overlap import values_of_keys

__all__ = ["exchange", "removal_order"]


def exchange(
    store: Store,
    writes: Mapping[str, bytes],
    removed: list[str],
    later: Mapping[str, bytes],
    known: Mapping[str, bytes | None] | None = None,
) -> None:
    """Write, then delete; if either fails, put everything back as it was.

    Parameters
    ----------
    store : Store
        Where the documents are.
    writes, later : mapping of str to bytes
        Documents, and those that repeat them, which are written after.
    removed : list of str
        Keys, deleted last.
    known : mapping of str to bytes or None, optional
        Values that were read for the plan, None where there was none. They are not read again, and are what is put
        back.

    Raises
    ------
    OSError
        Another writer changed a document that was to be deleted. It stays as that writer left it.
    Exception
        What the store raised, with a note that names what could not be put back.

    Notes
    -----
    Documents are compared just before they are deleted: what another writer sets between the two is lost.
    """
    touching = dict.fromkeys([*writes, *removed, *later])
    before = {key: data for key, data in (known or {}).items() if key in touching}
    before.update(values_of_keys(store, [key for key in touching if key not in before]))
    touched: list[str] = []
    try:
        # Arrays are written together, then each level of groups. Repetitions are written before anything is deleted:
        # after a crash, one that names a deleted document would be stale.
        for part in (*_levels(writes), *_levels(later)):
            touched += part
            store.setitems({key: (writes if key in writes else later)[key] for key in part})
        store.flush()
        for part in _levels(removed):
            _check_unchanged(store, {key: before[key] for key in part if key not in touched})
            touched += part
            store.delitems(part)
        store.flush()
    except BaseException as exc:
        left = _put_back(store, touched, before)
        if left:
            exc.add_note(f"not put back as they were: {', '.join(left)}; version 2 reads all the same")
        raise


def _check_unchanged(store: Store, before: Mapping[str, bytes | None]) -> None:
    for key, data in values_of_keys(store, before).items():
        if data != before[key]:
            reason = f"{key!r} was changed by another writer meanwhile; everything is put back, run it again"
            raise OSError(errno.EBUSY, reason)


def _levels(keys: Iterable[str]) -> list[list[str]]:
    """Return keys in runs that may be written, or deleted, together and in any order."""
    return [list(run) for _, run in groupby(keys, key=removal_order)]


def removal_order(key: str) -> tuple[bool, int, bool]:
    """Return the place of a key among those that are deleted.

    Consolidated metadata comes first, then the highest nodes; attributes after the node that makes a reader look.
    """
    name = k.name(key)
    return name != documents.ZMETADATA, len(k.segments(key)), name == documents.ZATTRS


def _put_back(store: Store, touched: Iterable[str], before: Mapping[str, bytes | None]) -> list[str]:
    left = []
    for key in reversed(list(touched)):
        data = before[key]
        try:
            if data is None:
                store.delitems([key])
            else:
                store[key] = data
        except Exception:
            left.append(key)
    return left
