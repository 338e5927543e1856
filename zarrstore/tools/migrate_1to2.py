"""Arrays that Zarr 1 wrote, made readable: new documents beside untouched chunks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from zarrstore import keys as k
from zarrstore.adapt import as_store
from zarrstore.base import Store
from zarrstore.errors import MetadataError, ReadOnlyError, UnsupportedOperation
from zarrstore.metadata import documents, v1, v2
from zarrstore.targets import Target, opens
from zarrstore.tools.migration import MigratedNode, MigrationReport
from zarrstore.tools.overlap import values_of_keys

__all__ = ["Plan1to2", "apply_1to2", "migrate_1to2", "plan_1to2", "report_1to2"]


@opens(store="r+")
def migrate_1to2(store: Target, path: object = "", *, dry_run: bool = False) -> MigrationReport:
    """Bring every version 1 array at or below a path to version 2, its chunks untouched.

    Parameters
    ----------
    store : MutableMapping of str to bytes
        Any mapping. Version 1 kept one array in a store; a directory of such directories works as well.
    path : str
        Where to look; ``""`` is the root.
    dry_run : bool, default False
        Judge everything and report, and write nothing.

    Returns
    -------
    MigrationReport
        One node per array, with notes on what is not a plain transcription and which codec cannot decode its chunks
        today. Empty where all is version 2 already.

    Raises
    ------
    MetadataError
        A document is no version 1 metadata, a version 2 document says something else, or neither version is there.
        Nothing was written.
    ReadOnlyError, UnsupportedOperation
        The store cannot be written, or cannot erase. Nothing was written.

    Notes
    -----
    All documents are computed and judged before the first is written. The order is every ``.zattrs``, every
    ``.zarray``, then all ``attrs`` and at last all ``meta`` are removed: a crash leaves arrays that read in one version
    or both, and the next run goes on. Cost: one listing, four reads, two writes and two deletions an array, each in one
    batch. Source: zarr 2.2 ``migrate_1to2``, which deleted first, transposed order F, and lost arrays of text, dates
    and structures.

    Examples
    --------
    >>> store = {
    ...     "meta": b'{"zarr_format": 1, "shape": [4], "chunks": [2], "dtype": "<i4", "order": "C",'
    ...     b' "compression": "zlib", "compression_opts": 1, "fill_value": 0}',
    ...     "attrs": b"{}",
    ...     "0": b"chunk",
    ... }
    >>> migrate_1to2(store).counts()
    {'migrated': 1}
    >>> sorted(store)
    ['.zarray', '.zattrs', '0']
    """
    adapted = as_store(store)
    plans = plan_1to2(adapted, k.normalize_path(path))
    if not dry_run:
        apply_1to2(adapted, plans)
    return report_1to2(plans, dry_run)


@dataclass(frozen=True)
class Plan1to2:
    """The new documents of one array."""

    path: str
    zarray: bytes
    zattrs: bytes
    notes: list[str]

    @property
    def zarray_key(self) -> str:
        return k.join(self.path, documents.ZARRAY)

    @property
    def zattrs_key(self) -> str:
        return k.join(self.path, documents.ZATTRS)


def plan_1to2(store: Store, path: str) -> list[Plan1to2]:
    """Compute and judge the new documents of all arrays; write nothing."""
    found = dict(sorted(_version_1_arrays(store, path)))
    names = (documents.ATTRS, documents.ZATTRS, documents.ZARRAY)
    held = values_of_keys(store, [k.join(array, name) for array in found for name in names])
    plans = [_plan(array, meta, held) for array, meta in found.items()]
    if not plans:
        _check_version_2(store, path)
    return plans


def report_1to2(plans: Sequence[Plan1to2], dry_run: bool) -> MigrationReport:
    """Return what a migration from version 1 to 2 reports of its plans."""
    action = "planned" if dry_run else "migrated"
    nodes = (
        MigratedNode(plan.path, "array", action, tuple(plan.notes), (plan.zarray_key, plan.zattrs_key))
        for plan in plans
    )
    return MigrationReport(1, 2, dry_run, tuple(nodes))


def _version_1_arrays(store: Store, path: str) -> Iterator[tuple[str, bytes]]:
    """Yield the path of each version 1 array, and its document.

    A key named ``meta`` may also be a value of a version 2 hierarchy.
    """
    if not store.capabilities.listable:
        candidates = [k.join(path, documents.META)]
    else:
        candidates = [key for key in store.keys_below(path) if k.name(key) == documents.META]
    for key, data in values_of_keys(store, candidates).items():
        if data is not None and _looks_like_version_1(data, key, at_path=k.parent(key) == path):
            yield k.parent(key), data


def _looks_like_version_1(data: bytes, key: str, at_path: bool) -> bool:
    try:
        return documents.loads(data, key).get("zarr_format") is not None or at_path
    except MetadataError:
        if at_path:
            raise
        return False


def _plan(path: str, document: bytes, held: Mapping[str, bytes | None]) -> Plan1to2:
    """Compute and judge the new documents of one array."""
    meta_key = k.join(path, documents.META)
    meta, notes = v1.array_to_v2(document, meta_key)
    attrs_key = k.join(path, documents.ATTRS)
    zattrs_key = k.join(path, documents.ZATTRS)
    attrs, written = held[attrs_key], held[zattrs_key]
    if attrs is None and written is not None:
        zattrs = written  # an earlier run was stopped after it had removed `attrs`
    else:
        zattrs = v1.attrs_to_v2(attrs, attrs_key)
        if attrs is None:
            notes = [*notes, "attrs was missing and is taken for empty"]
    plan = Plan1to2(path, v2.encode_array(meta), zattrs, notes)
    for key, planned in ((plan.zarray_key, plan.zarray), (zattrs_key, zattrs)):
        there = held[key]
        if there is not None and there != planned:
            raise MetadataError(key, None, f"stands beside {meta_key!r} and says something else; remove one of them")
    return plan


def apply_1to2(store: Store, plans: Sequence[Plan1to2]) -> None:
    """Write the new documents, then delete the old.

    Raises
    ------
    ReadOnlyError, UnsupportedOperation
        The store cannot be written, or cannot erase. Nothing was written.
    """
    if not plans:
        return
    if not store.capabilities.writable:
        raise ReadOnlyError(plans[0].zarray_key, store)
    if not store.capabilities.erasable:
        raise UnsupportedOperation("remove version 1 documents", store, "copy it to another store first")
    store.setitems({plan.zattrs_key: plan.zattrs for plan in plans})
    store.setitems({plan.zarray_key: plan.zarray for plan in plans})
    store.flush()
    # `meta` last: while it is there, the next run knows that something is left to do.
    for name in (documents.ATTRS, documents.META):
        store.delitems([k.join(plan.path, name) for plan in plans])


def _check_version_2(store: Store, path: str) -> None:
    for name in (documents.ZARRAY, documents.ZGROUP, documents.ZARR_JSON):
        if k.join(path, name) in store:
            return
    if store.capabilities.listable and any(k.name(key) in documents.DOCUMENTS for key in store.keys_below(path)):
        return
    raise MetadataError(k.join(path, documents.META), None, "it is not there, and nothing of version 2 or 3 is either")
