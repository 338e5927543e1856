"""Every example runs to its end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent.parent
NEEDS = {"05": ("zarr", "xarray"), "06": ("zarr", "icechunk")}


@pytest.mark.parametrize("example", sorted((HERE / "examples").glob("[0-9]*.py")), ids=lambda path: path.stem)
def test_an_example_runs_to_its_end(example: Path, tmp_path: Path) -> None:
    for module in NEEDS.get(example.stem[:2], ()):
        found = pytest.importorskip(module, reason=f"needs {module}: pip install zarrstore[test]")
        if module == "zarr" and found.__version__.startswith("2"):
            pytest.skip("needs zarr 3: pip install zarrstore[zarr3]")
    env = {**os.environ, "PYTHONPATH": str(HERE)}
    done = subprocess.run([sys.executable, example], capture_output=True, text=True, cwd=tmp_path, env=env, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert list(tmp_path.iterdir()) == []
