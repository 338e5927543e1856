"""The benchmarks run, compare and draw; what they measure is not judged here."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import report
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
    assert results.keys() >= set(SCENARIOS) - {"copy_s3", "race_s3", "race_s3_full"}
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


@pytest.mark.slow
def test_pictures_are_drawn_from_results(tmp_path: Path) -> None:
    results = {
        "copies": {"directory to zip": {"zarrstore": {"cpu_us": 5.0}, "zip": {"cpu_us": 7.0}, "x": {"lacks": ""}}}
    }
    (file,) = report.plot(results, tmp_path)
    assert file.name == "copies.svg"
    assert file.read_text().startswith("<?xml")
