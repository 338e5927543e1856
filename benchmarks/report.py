"""Results as JSON, as lines, beside an earlier run, and as pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["compare", "line", "load", "plot", "race_table", "save"]

_COLOURS = {"zarrstore": "#1f77b4", "zarrstore nested": "#7fb2d9", "bare": "#888888", "zarr 2": "#d62728"}
#: Scenario, title, cases whose names begin so, and what is drawn.
_PICTURES = [
    ("files", "One file a key, 1 KiB: processor time a key", ("set 1", "replace", "get 1", "in", "delete"), "cpu_us"),
    ("chunks", "NumPy chunks of 4 MiB: processor time a chunk", ("directory", "zip", "lmdb", "sqlite"), "cpu_us"),
    ("archives", "Zip archives: processor time", ("set", "get", "open", "list", "absent", "subtree"), "cpu_us"),
    ("copies", "Copies: processor time a value", ("directory",), "cpu_us"),
    ("many_keys", "Verbs over many keys: largest memory, MiB", ("",), "peak_mib"),
]


def save(file: Path, machine: dict[str, Any], results: dict[str, Any]) -> None:
    """Write a run."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"machine": machine, "results": results}, indent=1, sort_keys=False) + "\n")


def load(file: Path) -> dict[str, Any]:
    """Read the results of a run."""
    results: dict[str, Any] = json.loads(file.read_text())["results"]
    return results


def line(case: str, found: dict[str, dict[str, Any]]) -> str:
    """Return a case as a line: each contestant with its time, and how many times that of zarrstore it is."""
    ours = next((found[who].get("cpu_us") for who in found if who.startswith("zarrstore")), None)
    parts = []
    for who, result in found.items():
        if "cpu_us" not in result:
            parts.append(f"{who}: {'not here' if 'lacks' in result else 'failed'}")
            continue
        ratio = f" ({result['cpu_us'] / ours:.2f})" if ours and not who.startswith("zarrstore") else ""
        rest = "".join(f" {k}={v}" for k, v in result.items() if k not in ("cpu_us", "wall_us"))
        parts.append(f"{who} {result['cpu_us']:,.3g} us{ratio}{rest}")
    return f"  {case:42} " + "; ".join(parts)


def compare(before: dict[str, Any], after: dict[str, Any], limit: float = 1.15) -> list[str]:
    """Return the cases where zarrstore has become slower or larger by more than `limit`.

    What is compared is the ratio to the first other contestant of both runs, which the machine and its load change
    less than the time itself; where there is none, the memory.
    """
    found = []
    for scenario, cases in after.items():
        for case, results in cases.items():
            old = before.get(scenario, {}).get(case)
            if old is None:
                continue
            for label, figure in (("time", _relative), ("memory", lambda r: r.get("zarrstore", {}).get("peak_mib"))):
                was, now = figure(old), figure(results)
                if was and now and now > limit * was:
                    found.append(f"{scenario}: {case}: {label} {now / was:.2f} of what it was")
    return found


def _relative(results: dict[str, dict[str, Any]]) -> float | None:
    ours = results.get("zarrstore", {}).get("cpu_us")
    other = next((r["cpu_us"] for who, r in results.items() if not who.startswith("zarrstore") and "cpu_us" in r), None)
    return ours / other if ours and other else None


def race_table(run: dict[str, Any]) -> str:
    """Return a run of the races to S3 as a table of the manual: wall seconds (processor seconds)."""
    steps = ("up", "up_again", "down", "down_again")
    machine = run["machine"]
    title = f"{machine['cores']} cores ({machine['processor']}), load {machine['load']} at the end, {machine['time']}"
    rows = [["", "up", "again", "down", "again"]]
    for case, found in ((case, found) for cases in run["results"].values() for case, found in cases.items()):
        rows.append([f"**{case}**", *[""] * len(steps)])
        rows += [[who, *(_seconds(result, step) for step in steps)] for who, result in found.items()]
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    rule = "   " + "  ".join("=" * width for width in widths)
    # A backslash stands for an empty cell: an empty first one would go on with the row above.
    cells = [[(cell or "\\").ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    text = [f"   {'  '.join(row)}" for row in cells]
    return "\n".join([f".. table:: {title}", "", rule, text[0], rule, *text[1:], rule]) + "\n"


def _seconds(result: dict[str, Any], step: str) -> str:
    return f"{result[step]:.2f} ({result[step + '_cpu']:.2f})" if step in result else "-"


def plot(results: dict[str, Any], folder: Path) -> list[Path]:
    """Draw the pictures of the manual; return their files."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "zarrstore"
    folder.mkdir(parents=True, exist_ok=True)
    return [
        _picture(folder / f"{scenario}.svg", title, _chosen(results[scenario], starts), field)
        for scenario, title, starts, field in _PICTURES
        if scenario in results
    ]


def _chosen(cases: dict[str, Any], starts: tuple[str, ...]) -> dict[str, Any]:
    names = [name for start in starts for name in cases if name.startswith(start)]
    if any("4 MiB" in name for name in names):
        names = [name for name in names if name.endswith(" 4 MiB")]
    return {name: cases[name] for name in dict.fromkeys(names)}


def _picture(file: Path, title: str, cases: dict[str, Any], field: str) -> Path:
    import matplotlib.pyplot as plt

    everyone = list(dict.fromkeys(who for found in cases.values() for who in found if field in found[who]))
    height = 1.1 + 0.13 * sum(len(found) for found in cases.values()) + 0.12 * len(cases)
    figure, axes = plt.subplots(figsize=(8, height), layout="constrained")
    palette = iter(plt.get_cmap("Set2").colors)
    colours = {who: _COLOURS.get(who) or next(palette) for who in everyone}
    at, ticks, drawn = 0.0, [], set()
    for found in cases.values():
        start = at
        for who in everyone:
            if field not in found.get(who, {}):
                continue
            value = found[who][field]
            axes.barh(at, value, color=colours[who], label=None if who in drawn else who)
            axes.annotate(f" {value:,.3g}", (value, at), va="center", fontsize=6)
            drawn.add(who)
            at += 1
        ticks.append((start + at - 1) / 2)
        at += 0.8
    axes.set_yticks(ticks, list(cases), fontsize=8)
    axes.invert_yaxis()
    if field == "cpu_us":
        axes.set_xscale("log")
        axes.set_xlabel("microseconds, logarithmic")
    axes.set_title(title, fontsize=10)
    axes.margins(x=0.12)
    if len(drawn) > 1:
        figure.legend(fontsize=7, ncols=5, loc="outside lower center")
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)
    return file
