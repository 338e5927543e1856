"""Hierarchies that zarr 2.4.0, zarr 2.11.3 and TensorStore wrote, and what each zarr reads of a copy."""

from __future__ import annotations

import json
import os
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
#: Every N5 hierarchy, which a view shows as version 2.
N5 = tuple((release, "data.n5") for release in (*RELEASES, "tensorstore"))


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
    from zarrstore import DirectoryStore, N5View, NestedDirectoryStore, ZipStore
    from zarrstore.tools.nestedtrees import looks_nested

    if path.is_file():
        return ZipStore(path, mode="r")
    plain = DirectoryStore(path)
    if path.suffix == ".n5":
        return N5View(plain)
    return NestedDirectoryStore(path) if looks_nested(plain) else plain


def expected(release: str, is_n5: bool = False) -> dict[str, Any]:
    """Return what the writer read back, by path, axes as Zarr counts them."""
    import numpy as np

    found = np.load(DATA / release / "expected.npz", allow_pickle=True)
    if release == "tensorstore":
        return {name.replace("__", "/"): found[name].T for name in found.files}
    chosen = {name.removeprefix("n5__"): name for name in found.files if name.startswith("n5__") == is_n5}
    return {path.replace("__", "/"): found[name] for path, name in chosen.items()}


def differences(targets: list[list[str]]) -> list[str]:
    """Return what this interpreter's zarr reads differently from the writer: "kind path array".

    A target is the release, what zarr is to open it as, and its path; ``n5-`` before the kind chooses the values of N5.
    """
    import numpy as np
    import zarr

    wrong = []
    for release, kind, path in targets:
        try:
            group = zarr.open_group(_store(zarr, kind.removeprefix("n5-"), path), mode="r")
            for name, values in expected(release, kind.startswith("n5-")).items():
                found = np.asarray(group[name][...])
                if found.shape != values.shape or not np.array_equal(found, values, equal_nan=found.dtype.kind == "f"):
                    wrong.append(f"{kind} {path} {name}")
        except Exception as exc:
            wrong.append(f"{kind} {path} {exc!r}")
    return wrong


def _store(zarr: Any, kind: str, path: str) -> Any:
    if zarr.__version__.startswith("2"):
        if kind == "s3":
            return zarr.storage.FSStore(f"s3://{path}", mode="r", **json.loads(os.environ["ZARRSTORE_S3_OPTIONS"]))
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
    if kind == "s3":
        from obstore.store import S3Store

        bucket, _, prefix = path.partition("/")
        return zarr.storage.ObjectStore(S3Store(bucket, prefix=prefix, virtual_hosted_style_request=False))
    return path


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(json.dumps(differences(json.loads(sys.argv[1]))))
