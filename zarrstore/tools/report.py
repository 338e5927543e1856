"""A report of a migration that one can file: what became of each node, who reads it, and the checksums."""

from __future__ import annotations

import hashlib
import html
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from zarrstore import keys as k
from zarrstore.adapt import as_store
from zarrstore.base import Store
from zarrstore.errors import MetadataError
from zarrstore.kinds import load
from zarrstore.metadata import documents, v2, v3
from zarrstore.metadata.readers import READERS, refusals
from zarrstore.nodes import walk
from zarrstore.targets import Target, opens
from zarrstore.tools.manifest import values_of, write_lines
from zarrstore.tools.migration import MigratedNode, MigrationReport
from zarrstore.urls import without_secrets

__all__ = ["FORMATS", "documents_of", "format_of", "report_of", "write_report"]

#: Endings of the files that can be written.
FORMATS = (".json", ".html")


@opens(source="r", dest="r")
def report_of(
    report: MigrationReport,
    source: Target,
    dest: Target | None = None,
    *,
    checksums: bool = True,
    names: tuple[str, str] | None = None,
) -> dict[str, Any]:
    """Return all that is known of a migration, as plain JSON values.

    Parameters
    ----------
    report : MigrationReport
        What the migration returned.
    source, dest : Mapping of str to bytes
        Where the hierarchy was, and where it is; without `dest` it was migrated in place.
    checksums : bool, default True
        Whether to read every value of the arrays that were migrated, for its SHA-256.
    names : (str, str), optional
        What the report calls the source and the destination.

    Returns
    -------
    dict
        Of each node: ``action``, ``changes`` (what is said in other words now, and what it means), ``notes``,
        ``refused_by`` (the readers of `metadata.readers.READERS` that do not read it, and why), and ``sha256`` of its
        document and of its values: that of the lines ``sha256  key`` of the latter, in the order of their keys, as
        `write_manifest` has them.

    Notes
    -----
    Cost: one read for each document, and with `checksums` one for each value.

    Examples
    --------
    >>> from zarrstore import init_array, migrate_2to3
    >>> store = {}
    >>> init_array(store, shape=4, chunks=2, dtype="<i4", compressor=None, fill_value=None, order="F", path="a")
    >>> found = report_of(migrate_2to3(store), store)
    >>> [(node["path"], node["action"]) for node in found["nodes"]]
    [('', 'migrated'), ('a', 'migrated')]
    >>> found["nodes"][1]["changes"][0]
    'fill_value null became 0: chunks that were never written were undefined, and are 0 now'
    """
    old, new = as_store(source), as_store(source if dest is None else dest)
    from_name, to_name = (repr(old), repr(new)) if names is None else names
    return {
        "zarrstore": load("zarrstore:__version__"),
        "source": without_secrets(from_name),
        "destination": without_secrets(to_name),
        "from_version": report.source,
        "to_version": report.target,
        "dry_run": report.dry_run,
        "counts": report.counts(),
        "readers": dict(READERS),
        "nodes": [_node(node, report, old, new, checksums and not report.dry_run) for node in report],
    }


def _node(node: MigratedNode, report: MigrationReport, old: Store, new: Store, checksums: bool) -> dict[str, Any]:
    key = next(iter(node.keys), None)
    data = new.get(key) if key is not None and not report.dry_run else None
    document = _document(node, data, old)
    members: dict[str, Any] = {
        "path": node.path,
        "kind": node.kind,
        "action": node.action,
        "changes": _changes(node, old, document),
        "notes": list(node.notes),
        "documents": list(node.keys),
        "refused_by": {},
    }
    if report.target == 3 and node.kind == "array":
        members["refused_by"] = (
            dict.fromkeys(READERS, "it was not migrated") if document is None else refusals(document)
        )
    if data is not None:
        members["sha256"] = {"document": hashlib.sha256(data).hexdigest()}
        if checksums and node.kind == "array":
            members["sha256"].update(_values(new, node.path))
    return members


def _document(node: MigratedNode, data: bytes | None, old: Store) -> Mapping[str, Any] | None:
    """Return the version 3 document of an array: the one that was written, or the one that would be."""
    if node.kind != "array" or node.action == "impossible":
        return None
    try:
        if data is not None:
            document = documents.loads(data, node.keys[0])
            return document if document.get("zarr_format") == 3 else None
        meta, attrs = _described(old, node.path)
        return None if meta is None else v3.array_v2_to_v3(meta, attrs).document
    except MetadataError:
        return None


def _described(store: Store, path: str) -> tuple[v2.ArrayMeta | None, dict[str, Any]]:
    """Return the version 2 description of an array and its attributes, None if there is none (any more)."""
    data, attrs = (store.get(k.join(path, name)) for name in (documents.ZARRAY, documents.ZATTRS))
    if data is None:
        return None, {}
    return v2.decode_array(data, k.join(path, documents.ZARRAY)), {} if attrs is None else v2.decode_attrs(attrs)


def _changes(node: MigratedNode, old: Store, document: Mapping[str, Any] | None) -> list[str]:
    """Return what version 3 says otherwise than version 2, and what that means for its readers."""
    if document is None:
        return []
    try:
        meta, attrs = _described(old, node.path)
    except MetadataError:
        return []
    return [] if meta is None else list(_differences(meta, attrs, document))


def _differences(meta: v2.ArrayMeta, attrs: Mapping[str, Any], document: Mapping[str, Any]) -> Iterator[str]:
    fill = document.get("fill_value")
    if meta.fill_value is None:
        yield f"fill_value null became {fill!r}: chunks that were never written were undefined, and are {fill!r} now"
    if meta.order == "F" and len(meta.shape) > 1:
        yield "order F became the codec transpose: items and axes are as they were, and readers get them in order C"
    dtype = meta.numpy_dtype
    if dtype.kind == "O":
        yield f"objects became the data type {document.get('data_type')!r}: each item is text or bytes of any length"
    elif dtype.str[:1] == ">":
        yield "the byte order left the type: big-endian is said by the codec bytes, and readers may give their own"
    if v3.DIMENSIONS in attrs and "dimension_names" in document:
        yield f"the attribute {v3.DIMENSIONS} became dimension_names"
    if any(isinstance(codec, Mapping) and codec.get("name") == "sharding_indexed" for codec in document["codecs"]):
        yield "its chunks are parts of shards: one value holds many, and writers replace a whole shard"


def _values(store: Store, path: str) -> dict[str, Any]:
    digest, count, nbytes = hashlib.sha256(), 0, 0
    for key, value in values_of(store, path):
        if k.name(key) in documents.DOCUMENTS:
            continue
        digest.update(f"{hashlib.sha256(value).hexdigest()}  {key}\n".encode())
        count += 1
        nbytes += len(value)
    return {"values": digest.hexdigest(), "n_values": count, "nbytes": nbytes}


# Files ----------------------------------------------------------------------------------------------------------------


@opens(source="r", dest="r")
def write_report(
    report: MigrationReport,
    file: str | os.PathLike[str],
    source: Target,
    dest: Target | None = None,
    *,
    checksums: bool = True,
    names: tuple[str, str] | None = None,
) -> None:
    """Write `report_of` to a file, replaced as a whole: as JSON, or as a page if its name ends in ``.html``.

    Parameters
    ----------
    report, source, dest, checksums, names
        As for `report_of`.
    file : path-like
        Ends in ``.json`` or ``.html``.

    Raises
    ------
    ValueError
        `file` ends otherwise.

    Examples
    --------
    >>> import os, tempfile
    >>> from zarrstore import init_group, migrate_2to3
    >>> store, folder = {}, tempfile.mkdtemp()
    >>> init_group(store)
    >>> write_report(migrate_2to3(store), folder + "/report.html", store)
    >>> open(folder + "/report.html").readline()
    '<!DOCTYPE html>\\n'
    """
    suffix = format_of(file)
    found = report_of(report, source, dest, checksums=checksums, names=names)
    if suffix == ".json":
        write_lines(file, [json.dumps(found, indent=2, allow_nan=False, default=str), "\n"])
    else:
        write_lines(file, _page(found))


def format_of(file: str | os.PathLike[str]) -> str:
    """Return the ending of a report's file; ValueError if it is none of `FORMATS`."""
    suffix = os.path.splitext(os.fspath(file))[1].lower()
    if suffix not in FORMATS:
        raise ValueError(f"a report is written as {' or '.join(FORMATS)}, and {os.fspath(file)!r} ends otherwise")
    return suffix


def documents_of(store: Mapping[str, Any], path: str) -> dict[str, bytes]:
    """Return the documents of version 2 below a path, for a report on a migration in place, which may delete them."""
    adapted = as_store(store)
    keys = [key for node in walk(adapted, path) for key in (node.key, node.attrs_key) if key]
    return dict(adapted.getitems(keys))


_STYLE = (
    "body{font:14px sans-serif;margin:2em}table{border-collapse:collapse}td,th{border:1px solid #bbb;padding:4px 8px;"
    "vertical-align:top;text-align:left}code{word-break:break-all}.impossible{background:#fdd}.migrated{background:#efe}"
)


def _page(found: Mapping[str, Any]) -> Iterator[str]:
    title = f"Zarr {found['from_version']} to {found['to_version']}"
    yield f'<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{title}</title>'
    yield f"<style>{_STYLE}</style></head>\n<body>"
    yield f"<h1>{title}{' (not done: a dry run)' if found['dry_run'] else ''}</h1>\n"
    yield f"<p>From <code>{_text(found['source'])}</code> to <code>{_text(found['destination'])}</code>, "
    yield f"by zarrstore {_text(found['zarrstore'])}.</p>\n<ul>"
    for action, count in found["counts"].items():
        yield f"<li>{count:,} {_text(action)}</li>"
    yield "</ul>\n<table><tr><th>node<th>kind<th>what was done<th>what changed<th>not read by<th>SHA-256</tr>\n"
    for node in found["nodes"]:
        yield f'<tr class="{_text(node["action"])}"><td><code>{_text(node["path"] or "/")}</code>'
        yield f"<td>{_text(node['kind'])}"
        yield f"<td>{_text(node['action'])}<td>{_list([*node['changes'], *node['notes']])}"
        yield f"<td>{_list(f'{reader}: {reason}' for reader, reason in node['refused_by'].items())}"
        yield f"<td>{_list(f'{name}: {value}' for name, value in node.get('sha256', {}).items())}</tr>\n"
    yield "</table>\n<p>Readers as they were tried: "
    yield ", ".join(f"{_text(name)} ({_text(release)})" for name, release in found["readers"].items())
    yield ".</p>\n</body></html>\n"


def _list(texts: Any) -> str:
    return "<br>".join(map(_text, texts))


def _text(value: object) -> str:
    """Return a text of unknown origin as HTML that a browser shows and does not run."""
    return html.escape("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value)))
