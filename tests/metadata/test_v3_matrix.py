"""The whole matrix: every dtype under every codec, filter and fill, written by zarr 2.18.7, read by five others."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.metadata import matrix
from tests.metadata.test_v3_readers import translate
from tests.support import peers
from zarrstore.metadata import chunking, v2, v3
from zarrstore.metadata.chunk import decode_chunk
from zarrstore.metadata.readers import refusals

MATRIX = Path(matrix.__file__)
ZARRITA = peers.HOME / "zarrita"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(scope="module", params=["write", "large"])
def folder(request: Any, tmp_path_factory: Any) -> Path:
    """Return a folder with v2.zarr, v3.zarr (its chunks untouched) and expected.pickle."""
    root = tmp_path_factory.mktemp(f"matrix-{request.param}")
    peers.run("zarr2", MATRIX, request.param, root, timeout=300)
    shutil.copytree(root / "v2.zarr", root / "v3.zarr")
    translate(root / "v3.zarr")
    return root


def kind_of(name: str) -> str:
    """Return the row of the table."""
    return name.split("-")[0]


def table(statuses: dict[str, str]) -> dict[str, dict[str, int]]:
    """Return how many arrays of each kind are equal, refused and wrong."""
    rows: dict[str, Counter[str]] = {}
    for name, status in statuses.items():
        rows.setdefault(kind_of(name), Counter())[status.split(":")[0]] += 1
    return {kind: dict(counts) for kind, counts in sorted(rows.items())}


def check(reader: str, statuses: dict[str, str], at_least: float, record: Callable[[str, object], None]) -> None:
    """No value may be wrong but what a migration names, and a reader that refuses all would prove nothing."""
    assert statuses
    record(reader, table(statuses))
    print(reader, json.dumps(table(statuses)))
    assert {name: status for name, status in statuses.items() if status == "wrong"} == {}
    equal = sum(status == "equal" for status in statuses.values())
    assert equal >= at_least * len(statuses), Counter(statuses.values())


def test_zarr_3_1(folder: Path, record_property: Any) -> None:
    check("zarr 3.1", peers.run("self", MATRIX, "status", folder, timeout=300), 0.95, record_property)


def test_zarr_3_4(folder: Path, record_property: Any) -> None:
    statuses = peers.run("z34", MATRIX, "status", folder, timeout=300)
    check("zarr 3.4", statuses, 1.0, record_property)


def check_refusals(folder: Path, reader: str, statuses: dict[str, str], perhaps: tuple[str, ...] = ()) -> None:
    """What a report says that a reader refuses, it refuses, and nothing else; of codecs in `perhaps` it reads some."""
    held = {path.parent.name: json.loads(path.read_bytes()) for path in (folder / "v3.zarr").glob("*/zarr.json")}
    predicted = {name for name in statuses if reader in refusals(held[name])}
    refused = {name for name in _refused(statuses) if "empty iterator" not in statuses[name]}
    unsure = {name for name in statuses if any(codec in json.dumps(held[name]) for codec in perhaps)}
    assert refused - predicted - unsure == set()
    assert {name for name in predicted if statuses[name] == "equal"} == set()


def test_zarrs(folder: Path, record_property: Any) -> None:
    pytest.importorskip("zarrs", reason="needs zarrs: pip install zarrstore[test]")
    statuses = peers.run("self", MATRIX, "status", folder, "zarrs.ZarrsCodecPipeline", timeout=300)
    # Of these it reads some, by type and by order.
    check_refusals(folder, "zarrs", statuses, ("fixedscaleoffset", "pcodec"))
    check("zarrs", statuses, 0.3, record_property)


def expected_and_documents(folder: Path) -> dict[str, Any]:
    expected = pickle.loads((folder / "expected.pickle").read_bytes())
    return {path.parent.name: expected[path.parent.name] for path in sorted((folder / "v3.zarr").glob("*/zarr.json"))}


def test_tensorstore(folder: Path, record_property: Any) -> None:
    tensorstore = pytest.importorskip("tensorstore", reason="needs tensorstore: pip install zarrstore[test]")
    statuses = {}
    for name, wanted in expected_and_documents(folder).items():
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(folder / "v3.zarr" / name)}}
        try:
            opened = tensorstore.open(spec).result()
            if opened.dtype == tensorstore.dtype("byte"):
                statuses[name] = "refused: NumPy has no such type"
                continue
            found = opened.read().result()
        except ValueError as exc:
            statuses[name] = f"refused: {exc}"
            continue
        statuses[name] = "equal" if _same_values(np.asarray(found), wanted) else "wrong"
    check_refusals(folder, "TensorStore", {name: text for name, text in statuses.items() if "NumPy" not in text})
    # It knows no filter of numcodecs, none of its lossy codecs, and has no NumPy type for raw bytes.
    check("tensorstore", statuses, 0.19, record_property)


def _same_values(found: np.ndarray, wanted: np.ndarray) -> bool:
    if wanted.dtype.kind == "V" and found.shape == (*wanted.shape, wanted.dtype.itemsize):
        return found.tobytes() == wanted.tobytes()  # raw bytes have an axis of their own there
    if found.shape != wanted.shape:
        return False
    if wanted.dtype.kind == "V":
        return np.ascontiguousarray(found).tobytes() == np.ascontiguousarray(wanted).tobytes()
    if wanted.dtype.kind in "fc":
        return bool(np.array_equal(found, wanted, equal_nan=True))
    return bool(found.tolist() == wanted.tolist())


def test_zarrita(folder: Path, record_property: Any) -> None:
    if shutil.which("node") is None or not (ZARRITA / "node_modules" / "zarrita").exists():
        pytest.skip("needs zarrita: npm install --prefix .peers/zarrita zarrita @zarrita/storage")
    expected = expected_and_documents(folder)
    statuses = _zarrita(folder, "v3", expected)
    check_refusals(folder, "zarrita", statuses)
    wrong = {name: expected[name] for name, status in statuses.items() if status == "wrong"}
    # Those are the ones of which the report of a migration says so, and no others; version 2 is read wrongly as well.
    assert wrong.keys() == {name for name in statuses if _is_named(folder, name, "zarrita")} - _refused(statuses)
    assert _zarrita(folder, "v2", wrong) == dict.fromkeys(wrong, "wrong")
    statuses |= dict.fromkeys(wrong, "named")
    check("zarrita", statuses, 0.2, record_property)


def _is_named(folder: Path, name: str, reader: str) -> bool:
    """Tell whether a migration says of an array that a reader gives other values."""
    meta = v2.decode_array((folder / "v2.zarr" / name / ".zarray").read_bytes())
    return any(note.startswith(f"{reader} reads") for note in v3.array_v2_to_v3(meta).notes)


def _refused(statuses: dict[str, str]) -> set[str]:
    return {name for name, status in statuses.items() if status.startswith("refused")}


def _zarrita(folder: Path, version: str, expected: dict[str, Any]) -> dict[str, str]:
    script = Path(__file__).with_name("read_zarrita.mjs")
    # From standard input, since a module's imports are looked for beside it, and here in the working directory.
    done = subprocess.run(
        ["node", "--input-type=module", "-", version, folder / f"{version}.zarr", *expected],
        input=script.read_text(),
        cwd=ZARRITA,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    statuses = {}
    for line in map(json.loads, done.stdout.splitlines()):
        wanted = expected[line["name"]]
        if "error" in line:
            statuses[line["name"]] = f"refused: {line['error']}"
        else:
            statuses[line["name"]] = "equal" if _same_as_listed(line, wanted) else "wrong"
    return statuses


def _same_as_listed(line: dict[str, Any], wanted: np.ndarray) -> bool:
    """Compare what a JavaScript program printed: numbers, or texts of those that JSON has no number for."""
    values = np.empty(len(line["values"]), dtype=object)
    values[:] = line["values"]
    if tuple(line["shape"]) != wanted.shape:
        return False
    if wanted.size == 0:
        return True
    strides = [8 * step for step in line["stride"]]
    found = np.lib.stride_tricks.as_strided(values, wanted.shape, strides) if wanted.shape else values.reshape(())
    return all(_same_item(one, other) for one, other in zip(found.ravel(), wanted.ravel(), strict=True))


def _same_item(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, np.bool_):
        return bool(found) == bool(wanted)
    if isinstance(wanted, np.datetime64 | np.timedelta64):
        return int(found) == int(wanted.view("i8"))
    if isinstance(wanted, np.integer):
        return int(found) == int(wanted)
    if isinstance(wanted, np.floating):
        number = {"Infinity": np.inf, "-Infinity": -np.inf, "NaN": np.nan}.get(found, found)
        return bool(np.array_equal(np.float64(number), np.float64(wanted), equal_nan=True))
    if isinstance(wanted, bytes):
        return str(found).rstrip("\0") == wanted.decode("latin-1")
    return str(found).rstrip("\0") == str(wanted)


def test_our_own_decoding_of_version_2(folder: Path, record_property: Any) -> None:
    statuses = {}
    expected = pickle.loads((folder / "expected.pickle").read_bytes())
    for name, wanted in expected.items():
        meta = v2.decode_array((folder / "v2.zarr" / name / ".zarray").read_bytes())
        if name == "object-array":
            continue  # arrays of arrays have no equality of their own
        equal = True
        for coords in chunking.chunk_grid(meta.shape, meta.chunks):
            path = folder / "v2.zarr" / name / (meta.separator.join(map(str, coords)) or "0")
            if path.exists():
                region = tuple(slice(i * n, (i + 1) * n) for i, n in zip(coords, meta.chunks, strict=True))
                part = wanted[region]
                chunk = decode_chunk(path.read_bytes(), meta, strict=True)[tuple(slice(0, n) for n in part.shape)]
                equal &= matrix.same(np.asarray(chunk), np.asarray(part)) or chunk.tolist() == part.tolist()
        statuses[name] = "equal" if equal else "wrong"
    check("zarrstore", statuses, 1.0, record_property)
    if sys.stdout is not None:
        print(len(statuses), "arrays")
