"""Run the scenarios, contestants in turns, and say what zarrstore costs beside them.

::

    python -m benchmarks                    all but the races, 15 minutes; writes benchmarks/results/latest.json
    python -m benchmarks --quick            small sizes, about a minute; writes nothing
    python -m benchmarks files cache        these scenarios
    python -m benchmarks race_s3 race_s3_full --output benchmarks/results/race_s3.json
                                            to S3 and back, beside aws, rclone and s5cmd: 16 minutes
    python -m benchmarks --compare          and name what has become slower than in the run that is committed
    python -m benchmarks --table            write the table of docs/performance.rst from that run, and that of
                                            docs/remote.rst from race_s3.json; measure nothing
    python -m benchmarks --plot             draw the pictures of docs/performance.rst from that run, measure nothing

Times are processor time of the fastest turn, in microseconds a key. In parentheses: how many times that of zarrstore.
Peers that are not here are left out; ``python tests/support/peers.py install zarr2 z34`` brings them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import report, table
from benchmarks.runner import SCENARIOS, machine, run

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "latest.json"
PAGE = HERE.parent / "docs" / "performance.rst"
PICTURES = HERE.parent / "docs" / "pictures"
#: The race to S3 is run by itself; docs/remote.rst includes its table.
RACE = HERE / "results" / "race_s3.json"
RACE_TABLE = PICTURES / "race_s3.txt"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the arguments say; return 1 if --compare finds something slower."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("scenario", nargs="*", help=f"of {', '.join(SCENARIOS)}; all if none is named")
    parser.add_argument("--quick", action="store_true", help="small sizes, about a minute")
    parser.add_argument("--rounds", type=int, default=99, help="at most so many turns, on a machine that is busy")
    parser.add_argument("--output", type=Path, help="where to write the results as JSON")
    parser.add_argument("--compare", nargs="?", type=Path, const=RESULTS, help="an earlier run; the one committed")
    parser.add_argument("--plot", action="store_true", help="draw the pictures from the run that is committed")
    parser.add_argument("--table", action="store_true", help="write the table from the run that is committed")
    options = parser.parse_args(arguments)
    if unknown := set(options.scenario) - set(SCENARIOS):
        parser.error(f"no scenario is called {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")
    if options.plot or options.table:
        _show(options.output or RESULTS, options.plot, options.table)
        return 0
    before = report.load(options.compare) if options.compare else {}
    results: dict[str, Any] = {}
    output = options.output or (None if options.quick or options.scenario else RESULTS)
    # Races against other programs take minutes and are run by name.
    names = options.scenario or [name for name in SCENARIOS if not name.startswith("race_")]
    for scenario, case, found in run(names, options.quick, options.rounds):
        if scenario not in results:
            print(scenario, flush=True)
        results.setdefault(scenario, {})[case.name] = found
        print(report.line(case.name, found), flush=True)
        if output is not None:  # after each case: what was measured is not lost
            report.save(output, machine(), results)
    slower = report.compare(before, results)
    for text in slower:
        print(text)
    return 1 if slower else 0


def _show(file: Path, plot: bool, write_table: bool) -> None:
    """Draw the pictures, or write the table, of a run."""
    if plot:
        for picture in report.plot(report.load(file), PICTURES):
            print(picture.name)
    if write_table:
        table.update(PAGE, json.loads(file.read_text()))
        print(PAGE.name)
        if RACE.exists():
            RACE_TABLE.write_text(report.race_table(json.loads(RACE.read_text())))
            print(RACE_TABLE.name)


if __name__ == "__main__":
    sys.exit(main())
