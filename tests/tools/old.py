"""Hierarchies that zarr 2.4.0 and 2.11.3 wrote, and what each zarr reads of a copy."""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent.parent / "data" / "old"
RELEASES = ("2.4.0", "2.11.3")
#: Every store of every release: (release, name).
STORES = tuple(
    (release, name)
    for release in RELEASES
    for name in ("dir.zarr", "nested.zarr", "a.zip")
    if (DATA / release / name).exists()
)


def copied(release: str, name: str, folder: Path) -> Path:
    """Return a copy of one of the hierarchies that a test may write to."""
    source, target = DATA / release / name, folder / name
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy(source, target)
    return target


def opened(path: Path) -> Any:
    """Return the store that a tree or an archive is."""
    from zarrstore import DirectoryStore, NestedDirectoryStore, ZipStore
    from zarrstore.tools.repair import looks_nested

    if path.is_file():
        return ZipStore(path, mode="r")
    plain = DirectoryStore(path)
    return NestedDirectoryStore(path) if looks_nested(plain) else plain


def differences(targets: list[list[str]]) -> list[str]:
    """Return what this interpreter's zarr reads differently from the writer: "kind path array"."""
    import numpy as np
    import zarr

    wrong = []
    for release, kind, path in targets:
        expected = np.load(DATA / release / "expected.npz", allow_pickle=True)
        try:
            group = zarr.open_group(_store(zarr, kind, path), mode="r")
            for name in expected.files:
                if name.startswith("n5__"):
                    continue
                found = np.asarray(group[name.replace("__", "/")][...])
                if found.shape != expected[name].shape or not np.array_equal(
                    found, expected[name], equal_nan=found.dtype.kind == "f"
                ):
                    wrong.append(f"{kind} {path} {name}")
        except Exception as exc:
            wrong.append(f"{kind} {path} {exc!r}")
    return wrong


def _store(zarr: Any, kind: str, path: str) -> Any:
    if zarr.__version__.startswith("2"):
        classes = {
            "dir": zarr.DirectoryStore,
            "zip": zarr.ZipStore,
            "lmdb": zarr.LMDBStore,
            "nested": zarr.NestedDirectoryStore,
        }
        return classes[kind](path, **({"mode": "r"} if kind == "zip" else {}))
    if kind == "zip":
        return zarr.storage.ZipStore(path, mode="r")
    if kind == "lmdb":
        from zarrstore import LMDBStore
        from zarrstore.bridges.zarr3 import MappingStore

        return MappingStore(LMDBStore(path), read_only=True)
    return path


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(json.dumps(differences(json.loads(sys.argv[1]))))
