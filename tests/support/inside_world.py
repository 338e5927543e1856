"""A test for the read-only world; its file is not collected unless named (tests/test_world.py does)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import world


def test_only_the_temporary_folder_can_be_written(tmp_path):
    world.require_inside()
    (tmp_path / "x").write_text("x")
    with pytest.raises(OSError):
        Path("/var/tmp/probe-write").write_text("x")
