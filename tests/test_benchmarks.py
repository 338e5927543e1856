"""The benchmarks run, compare and draw; what they measure is not judged here."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import report, table
from benchmarks.runner import SCENARIOS

CHECKOUT = Path(__file__).resolve().parent.parent


def _run(tmp_path: Path, *arguments: str) -> dict[str, dict]:
    output = tmp_path / "results.json"
    assert benchmarks.main([*arguments, "--quick", "--output", str(output)]) == 0
    text = output.read_text()
    assert not re.search(r"/(home|root|tmp|dev|work)\b", text)
    return json.loads(text)


@pytest.mark.slow
def test_a_scenario_measures_every_contestant_in_turns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = _run(tmp_path, "cache")
    assert {"processor", "cores", "memory_gib", "python", "commit"} <= found["machine"].keys()
    (case,) = found["results"]["cache"].values()
    assert case["zarrstore"]["cpu_us"] > 0
    assert case["bare"]["cpu_us"] > 0
    assert "hit, 1 threads" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_quick_run_covers_all_scenarios_and_nothing_fails(tmp_path: Path) -> None:
    results = _run(tmp_path)["results"]
    assert results.keys() >= set(SCENARIOS) - {"copy_s3", "race_s3", "race_s3_full", "race_serve"}
    failures = {
        (scenario, case, who): result["error"]
        for scenario, cases in results.items()
        for case, found in cases.items()
        for who, result in found.items()
        if "error" in result
    }
    assert failures == {}


def test_what_became_slower_beside_the_others_or_larger_is_named() -> None:
    before = {
        "files": {"set": {"bare": {"cpu_us": 10.0}, "zarrstore": {"cpu_us": 12.0}}},
        "many_keys": {"copy": {"zarrstore": {"cpu_us": 1.0, "peak_mib": 100.0}}},
    }
    slower_machine = {"files": {"set": {"bare": {"cpu_us": 20.0}, "zarrstore": {"cpu_us": 24.0}}}}
    assert report.compare(before, slower_machine) == []
    after = {
        "files": {"set": {"bare": {"cpu_us": 10.0}, "zarrstore": {"cpu_us": 18.0}}},
        "many_keys": {"copy": {"zarrstore": {"cpu_us": 9.0, "peak_mib": 150.0}}},
        "new": {"case": {"zarrstore": {"cpu_us": 1.0}}},
    }
    assert report.compare(before, after) == [
        "files: set: time 1.50 of what it was",
        "many_keys: copy: memory 1.50 of what it was",
    ]


def test_an_unknown_scenario_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        benchmarks.main(["speed"])
    assert "no scenario is called speed" in capsys.readouterr().err


def test_the_page_shows_what_the_committed_run_found() -> None:
    page, run = benchmarks.PAGE.read_text(encoding="utf-8"), json.loads(benchmarks.RESULTS.read_text())
    shown = page.partition(table.BEGIN)[2].partition(table.END)[0].strip()
    assert shown == table.table(run), "python -m benchmarks --table writes it anew"


def test_each_row_of_the_table_is_a_case_that_is_measured() -> None:
    cases = {
        (scenario, case.name): case.contestants
        for scenario in SCENARIOS
        for case in importlib.import_module(f"benchmarks.scenarios.{scenario}").cases(False)
    }
    assert {(row.scenario, row.case) for row in table.ROWS} <= cases.keys()
    for row in table.ROWS:
        assert {row.who, row.beside or row.who} <= set(cases[row.scenario, row.case]), row.what


def test_a_figure_above_its_goal_is_bold_and_a_case_that_was_not_run_is_not_measured() -> None:
    row = table.Row("set", "files", "set 1 KiB", 1.3, "bare", before="2")
    times = {"bare": 4.0, "zarrstore": 6.0, "zarr 2": 8.0, "x": 9.0, "y": 5.0, "zarr 3": 40.0, "z": 1.0}
    results = {"files": {"set 1 KiB": {who: {"cpu_us": time} for who, time in times.items()}}}
    results["files"]["set 1 KiB"]["z"] = {"lacks": "z"}  # type: ignore[dict-item]
    assert row.cells(results) == ["set", "**1.5 of raw**", "1.3", "zarr 2 2, zarr 3 10, y 1.25, 0.1.0: 2"]
    results["files"]["set 1 KiB"]["zarrstore"] = {"cpu_us": 5.2}
    assert row.cells(results)[1] == "1.3 of raw"
    assert row.cells({})[1] == "not measured"


@pytest.mark.slow
def test_pictures_are_drawn_from_results(tmp_path: Path) -> None:
    results = {
        "copies": {"directory to zip": {"zarrstore": {"cpu_us": 5.0}, "zip": {"cpu_us": 7.0}, "x": {"lacks": ""}}}
    }
    (file,) = report.plot(results, tmp_path)
    assert file.name == "copies.svg"
    assert file.read_text().startswith("<?xml")
