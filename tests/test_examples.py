"""Every example runs to its end."""

from __future__ import annotations

import ast
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


@pytest.mark.parametrize("example", sorted((HERE / "examples").glob("[0-9]*.py")), ids=lambda path: path.stem)
def test_an_example_is_read_in_a_minute_and_ends_in_an_assert(example: Path) -> None:
    source = example.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 60
    (main,) = [part for part in ast.parse(source).body if isinstance(part, ast.FunctionDef) and part.name == "main"]
    last = main.body[-1]
    while isinstance(last, ast.With):
        last = last.body[-1]
    assert isinstance(last, ast.Assert)
