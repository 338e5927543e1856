"""The fences themselves: a fence that lets things through would make every test behind it worthless."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
import threading
from pathlib import Path

import pytest

from tests.support import world
from tests.support.world import EscapeError, EscapeSentinel

ATTEMPTS = {
    "open to read": lambda out: open(out / "x"),
    "open to write": lambda out: open(out / "new", "w"),
    "os.open": lambda out: os.open(out / "new", os.O_CREAT | os.O_WRONLY),
    "bytes path": lambda out: open(os.fsencode(out / "x")),
    "mkdir": lambda out: os.mkdir(out / "new"),
    "remove": lambda out: os.remove(out / "x"),
    "rename out": lambda out: os.rename("mine", out / "new"),
    "rename in": lambda out: os.rename(out / "x", "new"),
    "replace": lambda out: os.replace("mine", out / "x"),
    "rmtree": lambda out: shutil.rmtree(out),
    "listdir": lambda out: os.listdir(out),
    "scandir": lambda out: os.scandir(out),
    "link": lambda out: os.link("mine", out / "new"),
    "truncate": lambda out: os.truncate(out / "x", 0),
    "chmod": lambda out: os.chmod(out / "x", 0),
    "sqlite": lambda out: sqlite3.connect(out / "x.db"),
    "relative": lambda out: open("../out/x"),
    "the root's parent": lambda out: os.rename("..", "../elsewhere"),
    "through a symbolic link": lambda out: open("leads-out/x", "rb"),
    "into a symbolic link": lambda out: os.mkdir("leads-out/new"),
    "a process's memory": lambda out: open("/proc/self/mem", "rb"),
    "a sibling whose name begins alike": lambda out: open(str(out.parent / "root2"), "w"),
}


@pytest.fixture
def ground(tmp_path: Path) -> tuple[Path, Path]:
    root, out = tmp_path / "root", tmp_path / "out"
    root.mkdir()
    out.mkdir()
    (root / "mine").write_text("mine")
    (root / "leads-out").symlink_to(out)
    (out / "x").write_text("x")
    return root, out


@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS.keys())
def test_the_sentinel_refuses_and_records(attempt, ground):
    root, out = ground
    before = sorted(os.listdir(out.parent)), os.listdir(out)
    with EscapeSentinel(root) as sentinel, pytest.raises(EscapeError):
        attempt(out)
    assert len(sentinel.escapes) == 1
    assert (sorted(os.listdir(out.parent)), os.listdir(out), (out / "x").read_text()) == (*before, "x")


def test_the_sentinel_sees_other_threads(ground):
    root, out = ground
    with EscapeSentinel(root) as sentinel:
        thread = threading.Thread(target=lambda: (out / "new").exists() or _quietly(open, out / "new", "w"))
        thread.start()
        thread.join()
    assert sentinel.escapes == [("open", str(out / "new"))]


def _quietly(function, *args):
    try:
        function(*args)
    except EscapeError:
        pass


def test_the_sentinel_leaves_alone_what_stays_inside(ground):
    root, _ = ground
    with EscapeSentinel(root) as sentinel:
        os.makedirs("a/b")
        Path("a/b/c").write_text("1")
        folder = os.open("a", os.O_RDONLY)
        os.rename("b", "d", src_dir_fd=folder, dst_dir_fd=folder)
        os.close(folder)
        os.remove("leads-out")  # the link itself stands inside
        shutil.rmtree(root / "a")
        open(os.devnull, "w").close()
        sys.modules.pop("this", None)
        import colorsys  # noqa: F401  (imports go on)
    assert sentinel.escapes == []
    assert os.listdir(root) == ["mine"]


def test_disarmed_it_sees_nothing(ground):
    root, out = ground
    with EscapeSentinel(root) as sentinel:
        pass
    (out / "y").write_text("y")
    assert sentinel.escapes == []


def test_the_readonly_world_can_be_written_in_one_place_only(tmp_path):
    refused, here = world.run_readonly(
        """
        import json, os, sys, tempfile
        refused = []
        for folder in ["/", "/var/tmp", "/etc", "/dev/shm", sys.argv[1], os.path.dirname(sys.executable)]:
            try:
                open(os.path.join(folder, "probe-write"), "w").close()
            except OSError:
                refused.append(folder)
        for folder in (".", tempfile.gettempdir()):
            open(os.path.join(folder, "mine"), "w").close()
        print(json.dumps([len(refused), os.listdir(".")]))
        """,
        tmp_path,
    )
    assert (refused, here) == (6, ["mine"])
    assert os.listdir(tmp_path) == []


def test_tests_run_inside_the_world():
    assert "1 passed" in world.run_tests_readonly("tests/support/inside_world.py")
