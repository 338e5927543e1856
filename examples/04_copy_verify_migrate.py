"""A genuine zarr 2 hierarchy from a directory to one archive and on to LMDB, checked, and made readable by zarr 3.

Run it from the project's folder: ``python examples/04_copy_verify_migrate.py``.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import zarrstore

LEGACY = Path(__file__).resolve().parent.parent / "tests" / "data" / "v2" / "legacy.zarr"


def main() -> None:
    """Copy twice, compare, verify, migrate."""
    source = zarrstore.open_store(LEGACY, mode="r")
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "legacy.zip"
        copied, _, nbytes = zarrstore.pack(LEGACY, archive, verify=True)
        print(f"packed {copied} keys, {nbytes:,} bytes, into {archive.name}")
        with (
            zarrstore.open_store(archive, mode="r") as packed,
            zarrstore.open_store(Path(folder) / "legacy.lmdb") as lmdb,
        ):
            zarrstore.copy_store(packed, lmdb, resume=Path(folder) / "journal")
            differences = list(zarrstore.diff(source, lmdb))
            report = zarrstore.verify(lmdb)
            print(f"{len(differences)} differences; {report.n_decoded} chunks decoded, {len(report.problems)} problems")
            assert not differences
            assert report

            migration = zarrstore.migrate_2to3(lmdb)
            for node in migration:
                if node.action == "impossible":
                    print(f"{node.path}: {node.notes[0]}")
            print(f"version 3: {migration.counts()}")
            assert migration.counts() == {"migrated": 22, "impossible": 1}


if __name__ == "__main__":
    main()
