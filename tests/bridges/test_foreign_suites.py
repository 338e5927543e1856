"""The own tests of zarr 2.18.7 and of xarray over our stores: what fails is known, and why (docs/zarr2.rst)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import peers

pytestmark = pytest.mark.timeout(3000)

#: In a store's own class of tests -> why.
NO_SUBTREES = "zarr 2 deletes a subtree to make room for a value, or by the name of a directory"
STORAGE = {
    "TestMemoryStore::test_setdel": NO_SUBTREES,
    "TestDirectoryStore::test_setdel": NO_SUBTREES,
    "TestNestedDirectoryStore::test_setdel": NO_SUBTREES,
    "TestTempStore::test_setdel": NO_SUBTREES,
    "TestZipStore::test_pop": "it demands that an archive cannot delete; ours can",
    "TestZipStore::test_popitem": "as test_pop",
    "TestZipStore::test_permissions": "it sets 'baz/', which is no key",
    "TestLRUStoreCache::test_cache_keys": "it demands that `in` after a whole listing asks below; ours answers from it",
    "TestFSStore::test_dimension_separator": "it calls a private method of zarr's FSStore",
    "TestFSStore::test_complex": "it writes through simplecache::, over which a store is read-only",
    "TestFSStore::test_exceptions": "it demands that getitems reads at once; ours reads when a value is asked for",
    "TestFunctions::test_coverage_rename": "its value is a number, which is no bytes",
    "TestFunctions::test_deprecated_listdir_nosotre": "it demands a warning of deprecation from zarr's own listdir",
}
GROUPS = {
    "TestGroupWithZipStore::test_context_manager": "it asks for the ZipFile inside zarr's ZipStore",
}
ARRAYS = {
    "TestArrayWithPath::test_nbytes_stored": "it sets a list as a value, which is no bytes",
    "TestArrayWithChunkStore::test_nbytes_stored": "as TestArrayWithPath",
}


def outcomes(interpreter: str, script: str, folder: Path, *options: str) -> dict[str, set[str]]:
    """Run a file of tests; return the names of its tests by outcome."""
    # Not ZARRSTORE_ either: where peers are required, what zarr's tests skip (dbm.gnu) would count as failed.
    left_out = ("PYTEST_", "COV_", "ZARRSTORE_REQUIRE_")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(left_out)}
    # zarr's own arrays of objects are pickles.
    environment |= {"PYTHONPATH": str(peers.CHECKOUT), "NUMCODECS_ALLOW_UNSAFE_PICKLE_DECODE": "1"}
    environment["TMPDIR"] = str(folder)
    command = [interpreter, "-m", "pytest", "-q", "-rA", "--tb=no", "--show-capture=no", "-W", "ignore"]
    command += ["-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(peers.CHECKOUT)]
    command += ["--import-mode=importlib", f"--basetemp={folder / 'tests'}", str(peers.CHECKOUT / script), *options]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env=environment, timeout=2900, stdin=subprocess.DEVNULL
    )
    assert done.returncode in (0, 1), done.stdout[-3000:] + done.stderr[-3000:]
    found: dict[str, set[str]] = {"PASSED": set(), "FAILED": set(), "ERROR": set()}
    for outcome, name in re.findall(r"^(PASSED|FAILED|ERROR) \S+?\.py::(.+?)(?: - .*)?$", done.stdout, re.MULTILINE):
        found[outcome].add(name)
    return found


@pytest.mark.needs_peer("zarr2")
@pytest.mark.parametrize(
    "subject, known, least",
    [
        pytest.param("storage", STORAGE, 430, marks=pytest.mark.slow),
        pytest.param("hierarchy", GROUPS, 300, marks=pytest.mark.slow),
        pytest.param("core", ARRAYS, 900, marks=pytest.mark.nightly),
    ],
    ids=["storage", "hierarchy", "core"],
)
def test_of_zarr_s_tests_those_fail_that_are_known(
    subject: str, known: dict[str, str], least: int, tmp_path: Path
) -> None:
    found = outcomes(peers.python("zarr2"), f"tests/bridges/inside_zarr2_{subject}.py", tmp_path)
    assert found["FAILED"] | found["ERROR"] == set(known)
    assert len(found["PASSED"]) > least


@pytest.mark.nightly
def test_xarray_s_tests_fail_nowhere_that_zarr_s_own_directory_store_passes(tmp_path: Path) -> None:
    pytest.importorskip("xarray", reason="needs xarray: pip install zarrstore[xarray]")
    found = outcomes(sys.executable, "tests/bridges/inside_xarray.py", tmp_path, "-p", "xarray.tests.conftest")
    by_class: dict[str, set[str]] = {}
    for name in found["FAILED"] | found["ERROR"]:
        title, _, test = name.partition("::")
        by_class.setdefault(title, set()).add(test)
    theirs = by_class.pop("TestZarrDirectoryStore", set())
    assert {title: tests - theirs for title, tests in by_class.items() if tests - theirs} == {}
    assert len(found["PASSED"]) > 1500
