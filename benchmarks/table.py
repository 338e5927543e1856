"""The table of docs/performance.rst, from the JSON of a run: each row with its figure, its goal and its peers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["ROWS", "Row", "table", "update"]

BEGIN = ".. What follows is written by: python -m benchmarks --table"
END = ".. Here ends what is written by: python -m benchmarks --table"

_Results = dict[str, dict[str, dict[str, dict[str, Any]]]]

#: How a figure is shown: what it is divided by, and what stands behind it.
_UNITS = {"": (1.0, ""), "us": (1.0, " µs"), "ms": (1e3, " ms"), "s": (1.0, " s"), "MiB": (1.0, " MiB")}


@dataclass(frozen=True)
class Row:
    """One figure of one case.

    Parameters
    ----------
    what : str
        What the first column says.
    scenario, case : str
        Where the figure stands in the results.
    goal : float, optional
        The most that it may be; none where nothing was promised.
    beside : str, optional
        The contestant whose figure counts as 1; not given, figures are in `unit`.
    unit : {'us', 'ms', 's', 'MiB', ''}
        Of figures that are not relative; '' for counts.
    field : str
        Which field of a result.
    who : str
        Whose figure it is.
    before : str
        What version 0.1.0 took.
    """

    what: str
    scenario: str
    case: str
    goal: float | None = None
    beside: str | None = None
    unit: str = "us"
    field: str = "cpu_us"
    who: str = "zarrstore"
    before: str = ""

    def figures(self, results: _Results) -> dict[str, float]:
        """Return the figure of each contestant; none where the run did not have the case."""
        found = results.get(self.scenario, {}).get(self.case, {})
        figures = {who: float(result[self.field]) for who, result in found.items() if self.field in result}
        divisor = _UNITS[self.unit][0]
        if self.beside is not None:
            if not figures.get(self.beside):
                return {}
            divisor = figures[self.beside]
        return {who: figure / divisor for who, figure in figures.items()}

    def is_short(self, results: _Results) -> bool:
        """Tell whether the figure was measured and misses its goal, as it is shown."""
        figure = self.figures(results).get(self.who)
        # Rounded as shown: a figure that reads like its goal has reached it.
        return figure is not None and self.goal is not None and float(_rounded(figure)) > self.goal

    def cells(self, results: _Results) -> list[str]:
        """Return the cells of the row."""
        figures = self.figures(results)
        figure = figures.pop(self.who, None)
        mine = "not measured" if figure is None else self._shown(figure)
        if figure is not None and self.beside is not None:
            mine += f" of {_NAMES.get(self.beside, self.beside)}"
        figures.pop(self.beside or "", None)
        others = [f"{_NAMES.get(who, who)} {self._shown(figures[who])}" for who in _chosen(figures)]
        if self.before:
            others.append(f"0.1.0: {self.before}")
        goal = "" if self.goal is None else self._shown(self.goal)
        return [self.what, f"**{mine}**" if self.is_short(results) else mine, goal, ", ".join(others)]

    def _shown(self, figure: float) -> str:
        number = float(_rounded(figure))
        text = f"{number:,.0f}" if number >= 100 or number == int(number) else f"{number:g}"
        return text if self.beside is not None else text + _UNITS[self.unit][1]


#: What contestants are called in the manual.
_NAMES = {
    "bare": "raw",
    "class": "a Python class",
    "zarrstore": "zarrstore",
    "zarrstore nested": "NestedDirectoryStore",
}


def _rounded(figure: float) -> str:
    return f"{figure:.3g}"


def _chosen(figures: dict[str, float]) -> list[str]:
    """Return whom a row names: the bare calls, zarr 2, zarr 3, and the best of the others."""
    named = [who for who in ("bare", "class", "zarr 2", "zarr 3") if who in figures]
    others = sorted((who for who in figures if who not in named and who not in _OURS), key=figures.__getitem__)
    return named + others[:1]


_OURS = ("zarrstore", "zarrstore nested")


def _chunks() -> list[Row]:
    kinds = {"directory": ("DirectoryStore", "bare", 1.05), "zip": ("ZipStore", "zarr 2", 1.0)}
    kinds |= {"lmdb without sync": ("LMDBStore without sync", "zarr 2", 1.0), "sqlite": ("SQLiteStore", "zarr 2", 1.0)}
    rows = []
    for kind, (name, beside, goal) in kinds.items():
        for mib in (1, 4):
            rows += [
                Row(
                    f"{name}: {step} of a NumPy chunk of {mib} MiB", "chunks", f"{kind}: {step} {mib} MiB", most, beside
                )
                for step, most in (("set", goal), ("get", None))
            ]
        rows.append(Row(f"{name}: copies of it on the way in", "chunks", f"{kind}: set 4 MiB", 0, None, "", "copies"))
    return rows


def _memory() -> list[Row]:
    verbs = {"copy": "3,800 MiB", "verify": "3,800 MiB", "getitems": "3,800 MiB", "diff": "7,700 MiB"}
    verbs |= {"prefetch": "3,800 MiB", "manifest": ""}
    rows = [
        Row(
            f"Peak memory, 60 values of 64 MiB: {verb}, {threads} thread{'s' * (threads > 1)}",
            "large_values",
            f"{verb} 60 x 64 MiB, {threads} threads",
            256,
            unit="MiB",
            field="peak_mib",
            before=before,
        )
        for verb, before in verbs.items()
        for threads in ((1, 4) if verb in ("copy", "verify") else (1,))
    ]
    old = {"copy": 230, "verify": 255, "manifest": 460, "diff": 376, "pack": 447, "open zip": 180}
    names = ("copy", "copy with skip", "copy with differ", "diff", "manifest", "verify", "rmdir", "pack", "open zip")
    return rows + [
        Row(
            f"Peak memory at 10\\ :sup:`6` keys: {'opening a zip' if verb == 'open zip' else verb}",
            "many_keys",
            f"{verb} 1,000,000",
            300,
            unit="MiB",
            field="peak_mib",
            before=f"{old[verb]} bytes a key" if verb in old else "",
        )
        for verb in names
    ]


def _slow(verb: str, goal: float | None, unit: str, field: str, before: str = "") -> Row:
    return Row(f"100 ms to the store: {verb}", "latency", verb, goal, unit=unit, field=field, before=before)


def _latency() -> list[Row]:
    return [
        _slow("tree of 200 arrays", 3, "s", "seconds", "50 s"),
        _slow("migrate of 200 arrays", 8, "s", "seconds", "127 s"),
        _slow("info of 1,000 chunks", 5, "", "requests", "1,006 requests"),
        _slow("rename of 1,000 keys", 8, "s", "seconds", "36 s for 300"),
        _slow("rmdir of 1,000 keys", 4, "", "requests", "4 requests"),
        _slow("100 cold keys through a cache", None, "s", "seconds"),
    ]


def _copies() -> list[Row]:
    directory, s3 = "directory to directory", "directory to S3, 1,000 x 1 KiB"
    return [
        Row("Copy of 10,000 x 1 KiB, directory to directory", "copies", f"{directory}, 10,000 x 1 KiB", 1, "cp"),
        Row("The same, 16 x 16 MiB", "copies", f"{directory}, 16 x 16 MiB", 1, "cp"),
        Row("10,000 x 1 KiB, directory to zip", "copies", "directory to zip, 10,000 x 1 KiB", None, "zip"),
        Row("The same to LMDB", "copies", "directory to LMDB, 10,000 x 1 KiB", None, "zarr 2"),
        Row("Copy of 1,000 x 1 KiB to S3, wall time", "copy_s3", s3, 0.1, "zarr 2", field="wall_us"),
        Row("The same", "copy_s3", s3, 0.333, "aws s3 sync", field="wall_us"),
        Row("The same by obstore", "copy_s3", s3, 0.333, "aws s3 sync", field="wall_us", who="zarrstore obstore"),
        Row(
            "100,000 chunks of 4 KiB into shards of 1,000, a chunk",
            "shards",
            "100,000 chunks of 4 KiB into shards",
        ),
    ]


def _files() -> list[Row]:
    return [
        Row("DirectoryStore: set of 1 KiB", "files", "set 1 KiB", None, "bare"),
        Row("DirectoryStore: get of 1 KiB", "files", "get 1 KiB", None, "bare"),
        Row("DirectoryStore: ``in``", "files", "in", None, "bare"),
        Row("DirectoryStore: delete", "files", "delete", 1.3, "bare", before="1.6 to 2.4"),
        Row("DirectoryStore: delete, 400 keys in one call", "files", "delete a batch", 1.3, "bare"),
        *(
            Row(
                f"NestedDirectoryStore without a document near: {step}",
                "files",
                f"{step} 1 KiB",
                1.15,
                "zarrstore",
                who="zarrstore nested",
                before="2.3 to 3.4",
            )
            for step in ("set", "get")
        ),
        Row("DictStore: get", "memory", "get", 2.2, "bare", before="3.6"),
        Row("DictStore: ``in``", "memory", "in", 2.2, "bare", before="4.1"),
        Row(
            "DictStore: set of 10 keys and rmdir of them, beside 10\\ :sup:`5`",
            "memory",
            "subtree of 10 beside 100,000",
            0.1,
            unit="ms",
            before="26 ms",
        ),
    ]


def _archives() -> list[Row]:
    of = "100,000 entries"
    return [
        Row(f"Zip, {of}: open and get one", "archives", f"open and get one, {of}", unit="ms"),
        Row(f"Zip, {of}: list after that", "archives", f"list after opening, {of}", 30, unit="ms", before="118 ms"),
        Row(f"Zip, {of}: an absent short key", "archives", f"absent short key, {of}", 5, unit="ms", before="617 ms"),
        Row(
            "Zip, 10\\ :sup:`6` entries: set, list and rmdir of a small subtree, after a first listing",
            "archives",
            "subtree, 1,000,000 entries",
            0.1,
            unit="ms",
            before="73 ms",
        ),
        Row("ZipStore: set of 1 KiB", "archives", "set 1 KiB"),
        Row("ZipStore: get of 1 KiB", "archives", "get 1 KiB"),
    ]


def _hits() -> list[Row]:
    rows = [
        Row(
            f"LRUStoreCache: hit, {n} thread{'s' * (n > 1)}",
            "cache",
            f"hit, {n} threads",
            1.2,
            "bare",
            before="1.3 to 2",
        )
        for n in (1, 4, 16)
    ]
    return [*rows, Row("The same", "cache", "hit, 1 threads", 0.25, "zarr 2")]


def _databases() -> list[Row]:
    return [
        Row(f"{name}: {step} of 1 KiB", "databases", f"{kind}: {step} 1 KiB")
        for kind, name in (("lmdb", "LMDBStore"), ("sqlite", "SQLiteStore"))
        for step in ("set", "setitems", "get")
    ]


def _cluster() -> list[Row]:
    return [
        Row(f"The client's share on a cluster, a key: {verb}", "cluster", f"{verb} of 20,000 keys", 5, before=before)
        for verb, before in (("copy", "40 µs"), ("verify", "110 to 125 µs"), ("manifest", ""))
    ]


ROWS = [*_chunks(), *_memory(), *_cluster(), *_latency(), *_copies(), *_files(), *_archives(), *_hits(), *_databases()]


def table(run: dict[str, Any]) -> str:
    """Return a run as reStructuredText: the machine in a sentence, and all rows."""
    machine, results = run["machine"], run["results"]
    short = [row for row in ROWS if row.is_short(results)]
    measured = [row for row in ROWS if row.goal is not None and row.who in row.figures(results)]
    lines = [
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}, Python",
        f"{machine['python']}; files in {machine['file_system']}; a load of {machine['load']} at the end;",
        f"{machine['time']}, commit {machine['commit']}. {len(measured)} figures have a goal, and",
        f"{len(short)} of them, which are bold, fall short of it.",
        "",
        ".. list-table::",
        "   :header-rows: 1",
        "   :widths: 34 18 12 36",
        "",
    ]
    for cells in (["What", "zarrstore", "Goal, at most", "Peers"], *(row.cells(results) for row in ROWS)):
        lines += [f"   {'*' if n == 0 else ' '} - {cell}".rstrip() for n, cell in enumerate(cells)]
    return "\n".join(lines)


def update(page: Path, run: dict[str, Any]) -> None:
    """Write the table of a run into a page, between the two comments that mark its place."""
    text = page.read_text(encoding="utf-8")
    pattern = re.escape(BEGIN) + r".*" + re.escape(END)
    found = re.sub(pattern, lambda _: f"{BEGIN}\n\n{table(run)}\n\n{END}", text, count=1, flags=re.DOTALL)
    page.write_text(found, encoding="utf-8")
