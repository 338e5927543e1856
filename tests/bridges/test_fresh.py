"""What a fresh installation brings: xarray and fsspec open each kind of store, with nothing imported before."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

import zarrstore
from tests.bridges.test_xarray import VALUES, write

pytest.importorskip("xarray", reason="needs xarray: pip install zarrstore[xarray]")
pytest.importorskip("zarr", minversion="3", reason="needs zarr 3: pip install zarrstore[zarr3]")

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import json, sys, xarray
found = {}
for target in sys.argv[1:]:
    with xarray.open_dataset(target, mask_and_scale=False) as data:
        found[target] = [data["depth"].values.tolist(), list(data["depth"].dims), data["depth"].attrs["units"]]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def fresh_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment with zarrstore installed into it, and the packages of this one beside it."""
    folder = tmp_path_factory.mktemp("fresh")
    for name in ("zarrstore", "setup.py", "setup.cfg", "README.rst", "LICENSE"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
    environment = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    site = next((environment / "lib").glob("python*")) / "site-packages"
    install = [
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--target",
        site,
        folder,
    ]
    subprocess.run([sys.executable, *map(str, install)], check=True, cwd=folder)
    # Behind it, so that what is installed there is found first; without the .pth files that lead to this tree.
    there = [sysconfig.get_path("purelib"), *(path for path in sys.path if path.endswith("site-packages"))]
    (site / "beside.pth").write_text("\n".join(dict.fromkeys(there)))
    return environment / "bin" / "python"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*dbm.dumb")
def test_xarray_opens_each_kind_in_a_fresh_environment(fresh_python: Path, tmp_path: Path, nginx: Any) -> None:
    targets = [write(tmp_path / name) for name in ("x.zip", "x.lmdb", "x.sqlite", "x.n5", "x.dbm")]
    with zarrstore.open_store(tmp_path / "x.zip", "r") as store:
        zarrstore.write_references(store, tmp_path / "refs.json")
    targets.append(str(tmp_path / "refs.json"))
    url = nginx(tmp_path).url
    shutil.copy(tmp_path / "x.lmdb" / "data.mdb", tmp_path / "one.lmdb")
    with zarrstore.open_store(f"{url}/x.zip") as store:
        zarrstore.write_references(store, tmp_path / "web.json")
    targets += [
        str(tmp_path / "one.lmdb"),
        *(f"{url}/{name}" for name in ("x.zip", "one.lmdb", "x.sqlite", "web.json")),
    ]
    done = subprocess.run(
        [fresh_python, "-W", "ignore", "-c", SCRIPT, *targets],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={"ZARRSTORE_CACHE": str(tmp_path / "cache"), "PATH": ""},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout) == {target: [VALUES.tolist(), ["y", "x"], "m"] for target in targets}
    where = [fresh_python, "-c", "import zarrstore; print(zarrstore.__file__)"]
    found = subprocess.run(where, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert str(fresh_python.parent.parent) in found


@pytest.mark.slow
def test_fsspec_opens_a_chain_in_a_fresh_environment(fresh_python: Path, tmp_path: Path) -> None:
    target = write(tmp_path / "x.lmdb")
    script = "import fsspec, sys; print(fsspec.open('zarrstore://depth/.zattrs::' + sys.argv[1], 'rt').open().read())"
    done = subprocess.run(
        [fresh_python, "-c", script, target], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert json.loads(done.stdout)["units"] == "m"
