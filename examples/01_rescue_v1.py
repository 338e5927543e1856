"""Make arrays that Zarr 1.1.0 wrote readable again, and prove it.

Run it from the project's folder: ``python examples/01_rescue_v1.py``. It copies the 30 genuine version 1 arrays of
``tests/data/v1``, migrates them in place, and compares every value with what zarr 1.1.0 itself read.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np

import zarrstore

DATA = Path(__file__).resolve().parent.parent / "tests" / "data" / "v1"


def digests(store: zarrstore.Store) -> dict[str, str]:
    """SHA-256 of every chunk."""
    return {key: hashlib.sha256(value).hexdigest() for key, value in store.items() if key[-1].isdigit()}


def compare(store: zarrstore.Store, fixture: dict[str, object]) -> str:
    """Say how the values read today compare with those that zarr 1.1.0 read."""
    name = str(fixture["name"])
    if json.loads(store[f"{name}/.zarray"]) != fixture["faithful_zarray"]:
        return "WRONG DOCUMENT"
    expected = np.load(DATA / str(fixture["expected"]))
    try:
        values = zarrstore.read_array(store, name)
    except ValueError as exc:
        return f"document right; {str(exc).split(': ', 1)[1]}" if fixture["unreadable_today"] else f"WRONG: {exc}"
    return "equal" if (values.dtype, values.tobytes()) == (expected.dtype, expected.tobytes()) else "WRONG VALUES"


def main() -> None:
    """Rescue all 30 and print a table."""
    fixtures = json.loads((DATA / "manifest.json").read_text())["fixtures"]
    with tempfile.TemporaryDirectory() as folder:
        arrays = shutil.copytree(DATA, Path(folder) / "arrays", ignore=shutil.ignore_patterns("*.npy", "*.json"))
        store = zarrstore.DirectoryStore(arrays)
        before = digests(store)
        report = zarrstore.migrate_1to2(store)
        assert digests(store) == before, "a chunk was touched"
        assert len(report) == len(fixtures)
        results = {fixture["name"]: compare(store, fixture) for fixture in fixtures}
        for node in report:
            print(f"{node.path:24} {results[node.path]}", *node.notes, sep="\n    ")
    equal = sum(result == "equal" for result in results.values())
    right = sum(result.startswith("document right") for result in results.values())
    print(f"{len(report)} arrays, {len(before)} chunks untouched: {equal} equal, {right} that no codec decodes today")
    assert (equal, right) == (29, 1)


if __name__ == "__main__":
    main()
