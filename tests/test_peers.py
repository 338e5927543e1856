"""The real components are what they are taken for, and a test that goes without one never looks like a pass in CI."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.support import peers

VERSIONS = "import json, zarr, numcodecs, zarrstore; print(json.dumps(zarr.__version__))"


def test_zarr2_is_the_last_of_version_2():
    assert peers.run("zarr2", VERSIONS) == "2.18.7"


def test_z34_is_zarr_3_4():
    assert peers.run("z34", VERSIONS).startswith("3.4.")


@pytest.mark.parametrize("name, modules", [("debian", "dbm.gnu, dbm.ndbm"), ("py313", "dbm.sqlite3")])
def test_the_interpreters_for_dbm_know_their_databases(name, modules):
    assert peers.run(name, f"import {modules}, zarrstore; print(zarrstore.DictStore().__len__())") == 0


def test_a_script_gets_its_arguments_and_a_failing_one_shows_what_it_said():
    assert peers.run("self", "import json, sys; print('noise'); print(json.dumps(sys.argv[1:]))", 1, "é") == ["1", "é"]
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        peers.run("self", "1 / 0")


def test_a_missing_program_is_named_with_the_line_that_installs_it(monkeypatch):
    monkeypatch.delenv("ZARRSTORE_REQUIRE_PEERS", raising=False)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(peers, "_which", lambda command: None)
    peers.lacking.cache_clear()
    with pytest.raises(pytest.skip.Exception, match=r"needs strace .*: python tests/support/peers.py install tools"):
        peers.require("strace")
    monkeypatch.setenv("ZARRSTORE_REQUIRE_PEERS", "1")
    with pytest.raises(pytest.fail.Exception, match="needs strace"):
        peers.require("strace")
    peers.lacking.cache_clear()


def suite(folder, source, *options, **env):
    """Run tests of their own, and others of that folder, under this checkout's conftest; return pytest's last line."""
    (folder / "test_them.py").write_text(source)
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "ZARRSTORE_"))}
    command = [sys.executable, "-m", "pytest", "-q", "-c", str(peers.CHECKOUT / "setup.cfg"), "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "-p", "conftest", *options, *map(str, sorted(folder.glob("test_*.py")))],
        cwd=folder,
        env=clean | {"PYTHONPATH": str(peers.CHECKOUT)} | env,
        capture_output=True,
        text=True,
        timeout=100,
    )
    return done.stdout.strip().splitlines()[-1]


WANTING = """
import pytest
def test_wanting(): pytest.skip("needs x (no x on this machine): python tests/support/peers.py install x")
def test_other(): pytest.skip("only on Windows")
"""


def test_where_peers_are_required_a_skip_for_want_of_one_is_a_failure(tmp_path):
    (tmp_path / "test_module.py").write_text("import pytest; pytest.importorskip('no_such_module')")
    goes_on = "--continue-on-collection-errors"
    assert re.match("3 skipped", suite(tmp_path, WANTING, goes_on))
    assert re.match("1 failed, 1 skipped, .*1 error", suite(tmp_path, WANTING, goes_on, ZARRSTORE_REQUIRE_PEERS="1"))


DYING = """
import os, signal, time, pytest
class Stuck(Exception):
    @property
    def __notes__(self): time.sleep(50)
@pytest.mark.timeout(1)
def test_whose_failure_cannot_be_written(): raise Stuck
def test_that_is_killed(): os.kill(os.getpid(), signal.SIGKILL)
@pytest.mark.parametrize("n", range(6))
def test_other(n, tmp_path): pass
"""


@pytest.mark.slow
def test_a_test_that_hangs_in_its_report_or_kills_its_worker_fails_and_the_others_run(tmp_path):
    assert re.match("2 failed, 6 passed", suite(tmp_path, DYING, "-n", "2"))
    assert re.match("1 failed, 6 passed", suite(tmp_path, DYING, "-k", "not killed"))


MEASURING = """
import pathlib, time, pytest
log = pathlib.Path(__file__).with_name("log")
@pytest.mark.parametrize("n", [pytest.param(n, marks=[pytest.mark.alone] if n % 8 == 3 else []) for n in range(24)])
def test_it(n):
    begin = time.monotonic()
    time.sleep(0.03)
    with log.open("a") as out:
        out.write(f"{n} {begin} {time.monotonic()}\\n")
"""


@pytest.mark.slow
def test_nobody_runs_beside_a_test_that_measures(tmp_path):
    assert re.match("24 passed", suite(tmp_path, MEASURING, "-n", "2"))
    spans = [tuple(map(float, line.split())) for line in (tmp_path / "log").read_text().splitlines()]
    together = [
        (one[0], other[0])
        for one in spans
        for other in spans
        if one[0] < other[0] and max(one[1], other[1]) < min(one[2], other[2])
    ]
    assert together, "the two workers never met, so this shows nothing"
    assert not [pair for pair in together if 3 in (pair[0] % 8, pair[1] % 8)]
