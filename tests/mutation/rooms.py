"""Which tests are the focused tests of a module, and which survivors are explained."""

from __future__ import annotations

from pathlib import Path

__all__ = ["EXPLAINED", "FOCUSED", "PLANTED"]

_COPY = "tests/tools/test_copy.py tests/tools/test_copy_journal.py tests/tools/test_holding.py tests/tools/test_grid.py"
_COPY += " tests/tools/test_sync.py tests/tools/test_copy_past_python.py"
_VERIFY = "tests/tools/test_verify.py tests/tools/test_verify_damages.py"
_MIGRATE = "tests/tools/test_migrate_2to3.py tests/tools/test_migrate_again.py"
_REPAIR = "tests/tools/test_old_trees.py tests/tools/test_migrate_again.py"
_ZIP = "tests/stores/test_zip_process.py tests/stores/test_zip.py tests/stores/test_zip_archives.py"
_SQLITE = "tests/stores/test_sqlite_statements.py tests/stores/test_sqlite_values.py tests/stores/test_sqlite.py"
_SQLITE += " tests/stores/test_sqlite_crash.py"

#: Dotted names below zarrstore -> the test files that must notice a change.
FOCUSED = {
    "tools.copy": _COPY,
    "tools.copyjob": _COPY,
    "tools.copying": _COPY,
    "tools.traffic": _COPY,
    "tools.plan": _COPY,
    "tools.transfer": _COPY,
    "tools.journal": "tests/tools/test_copy_journal.py",
    "tools.holding": "tests/tools/test_holding.py",
    "tools.grid": "tests/tools/test_grid.py",
    "tools.listing": "tests/tools/test_grid.py tests/tools/test_tree.py tests/tools/test_diff.py",
    "tools.streams": "tests/tools/test_streams.py",
    "tools.diff": "tests/tools/test_diff.py tests/tools/test_manifest_diff_clean.py tests/tools/test_grid.py",
    "tools.manifest": "tests/tools/test_manifest_diff_clean.py tests/tools/test_diff.py",
    "tools.move": "tests/tools/test_move.py",
    "tools.migrate_1to2": "tests/tools/test_migrate_1to2.py",
    "tools.migrate_2to3": f"{_MIGRATE} tests/tools/test_old_trees.py",
    "tools.migrate_3to2": "tests/wrappers/test_unsharded.py",
    "tools.migration_copy": f"tests/wrappers/test_unsharded.py {_MIGRATE}",
    "tools.shard": "tests/tools/test_shard.py",
    "tools.shardplan": "tests/tools/test_shard.py",
    "tools.repair": _REPAIR,
    "tools.respell": _REPAIR,
    "tools.consolidate": f"{_MIGRATE} tests/wrappers/test_consolidated.py tests/tools/test_old_trees.py",
    "tools.verify": _VERIFY,
    "tools.inspection": _VERIFY,
    "wrappers.overlay": "tests/wrappers/test_overlay.py tests/wrappers/test_overlay_marks.py",
    "wrappers._marks": "tests/wrappers/test_overlay_marks.py tests/wrappers/test_overlay.py",
    "wrappers.split": "tests/wrappers/test_split.py",
    "stores.sqlite": _SQLITE,
    "stores.sqlite.connections": _SQLITE,
    "stores.sqlite.rows": _SQLITE,
    "stores.zip": f"tests/tools/test_pack.py tests/stores/test_ozx.py tests/stores/test_zip_cost.py {_ZIP}",
    "stores.zip.life": "tests/stores/test_zip_process.py tests/stores/test_zip_interrupts.py tests/stores/test_zip.py",
    "stores.zip.writer": "tests/stores/test_zip_interrupts.py tests/stores/test_zip_cost.py tests/stores/test_zip.py",
    "stores.zip.builder": "tests/stores/test_zip_cost.py tests/stores/test_zip_archives.py tests/stores/test_zip.py",
    "stores.zip.records": "tests/stores/test_zip_cost.py tests/stores/test_zip_archives.py",
    "stores.zip.names": "tests/stores/test_zip_cost.py",
    "stores.zip.directory": "tests/stores/test_zip_cost.py tests/stores/test_zip_archives.py",
    "stores.zip.ranges": "tests/stores/test_zip_ranges.py tests/stores/test_zip.py",
    "stores.zip.rewrite": "tests/tools/test_pack.py tests/stores/test_zip.py tests/stores/test_zip_archives.py",
    "tools.pack": "tests/tools/test_pack.py tests/tools/test_grid.py",
}

#: The changes that a night plants, by name.
PLANTED = tuple(Path(__file__).with_name("planted.txt").read_text().splitlines())
_LINES = Path(__file__).with_name("explained.txt").read_text().splitlines()
#: Changes that no test can notice, and why: a line for the change, and an indented one for the reason.
EXPLAINED: dict[str, str] = {name: reason.strip() for name, reason in zip(_LINES[::2], _LINES[1::2], strict=True)}
