"""What `verify` finds: problems with their keys, and a report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from zarrstore.shown import Shown

__all__ = ["KINDS", "Counts", "Problem", "VerifyReport"]

#: Every kind of problem, and what it means.
KINDS = {
    "document": "a document that is not Zarr metadata, or that Zarr refuses",
    "contradiction": "documents that cannot both be right",
    "disagreement": "documents of two versions of Zarr that describe different things",
    "orphan": "a document or a node that no reader finds from above",
    "missing": "a chunk that is not there, where no fill value may stand in for it",
    "foreign": "a key that belongs to no node",
    "outside": "a chunk outside the grid of its array",
    "separator": "a chunk named with the other dimension separator",
    "undecodable": "a chunk that no codec decodes, or that has the wrong size",
    "unread": "a value or a directory that could not be read",
    "irregular": "an entry of a file system that is no value: a link that leads nowhere or out, a pipe",
    "departure": "an archive that is not laid out as its name says (.ozx, RFC-9 of OME-NGFF)",
    "stale": "consolidated metadata that does not repeat the documents",
    "manifest": "a value that is not what the manifest says",
    "leftover": "a document of a version that the node does not have any more",
}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Parameters
    ----------
    key : str
        Where.
    kind : str
        One of `KINDS`.
    reason : str
        What is wrong, in words.

    Examples
    --------
    >>> str(Problem("a/0", "undecodable", "zlib cannot decode it"))
    'a/0: undecodable: zlib cannot decode it'
    """

    key: str
    kind: str
    reason: str

    def __str__(self) -> str:
        return f"{self.key}: {self.kind}: {self.reason}"


@dataclass
class Counts:
    """How much was looked at: the numbers of a `VerifyReport`."""

    n_arrays: int = 0
    n_groups: int = 0
    n_chunks: int = 0
    n_expected: int = 0
    n_decoded: int = 0

    def __iadd__(self, other: Counts) -> Counts:
        self.n_arrays += other.n_arrays
        self.n_groups += other.n_groups
        self.n_chunks += other.n_chunks
        self.n_expected += other.n_expected
        self.n_decoded += other.n_decoded
        return self


@dataclass(frozen=True, repr=False)
class VerifyReport(Shown):
    """Every problem found, and what was looked at. True if there is no problem.

    Parameters
    ----------
    problems : tuple of Problem
        In the order of the nodes.
    n_arrays, n_groups : int
        Nodes.
    n_chunks, n_expected : int
        Chunks that are there, and that there would be if all were written.
    n_decoded : int
        Chunks that were decoded.
    notes : tuple of str
        What could not be looked at, and why.

    Examples
    --------
    >>> from zarrstore import verify
    >>> report = verify({".zgroup": b'{"zarr_format": 2}', ".DS_Store": b""})
    >>> bool(report), [problem.key for problem in report.problems], report.fully_checked
    (False, ['.DS_Store'], True)
    """

    problems: tuple[Problem, ...] = ()
    n_arrays: int = 0
    n_groups: int = 0
    n_chunks: int = 0
    n_expected: int = 0
    n_decoded: int = 0
    notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return not self.problems

    def _title(self) -> str:
        return (
            f"{self.n_arrays:,} arrays, {self.n_groups:,} groups, {self.n_chunks:,} of {self.n_expected:,} chunks, "
            f"{self.n_decoded:,} decoded: {len(self.problems):,} problems"
            f"{'' if self.fully_checked else f', {len(self.notes):,} notes'}"
        )

    def _headers(self) -> tuple[str, ...]:
        return ("key", "kind", "reason")

    def _rows(self) -> list[tuple[object, ...]]:
        rows: list[tuple[object, ...]] = [(one.key, one.kind, one.reason) for one in self.problems]
        return rows + [("", "note", note) for note in self.notes]

    @property
    def fully_checked(self) -> bool:
        """Whether everything was looked at; otherwise `notes` names what was not."""
        return not self.notes

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return {
            "ok": bool(self),
            "fully_checked": self.fully_checked,
            "problems": [{"key": p.key, "kind": p.kind, "reason": p.reason} for p in self.problems],
            "arrays": self.n_arrays,
            "groups": self.n_groups,
            "chunks": self.n_chunks,
            "chunks_expected": self.n_expected,
            "chunks_decoded": self.n_decoded,
            "notes": list(self.notes),
        }
