"""Standard streams that are closed or full: an exit code and a line, and no file of a store gets their numbers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cases import each_of
from zarrstore import DirectoryStore, open_store


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("streams")
    DirectoryStore(path / "d").update({"a/0": b"0", "a/1": b"1"})
    return path


def shell(folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    """Run a line of the shell in which ``Z`` is the command line; streams are closed as a shell closes them."""
    command = f'Z() {{ "{sys.executable}" -m zarrstore "$@"; }}; {line}'
    return subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, timeout=60)


@each_of(
    ("line", "sentence"),
    [
        ("Z ls d a >&-", "Bad file descriptor"),
        ("Z cat d a/0 >&-", "Bad file descriptor"),
        ("Z get d a/0 - >&-", "Bad file descriptor"),
        ("Z ls d a >/dev/full", "No space left on device"),
        ("Z put d a/new - <&-", "Bad file descriptor"),
        ("Z ls nowhere 2>/dev/full", ""),
        ("Z ls nowhere 2>&-", ""),
    ],
)
def test_what_cannot_be_read_or_printed_is_exit_3_and_a_line(folder: Path, line: str, sentence: str) -> None:
    if "/dev/full" in line and not Path("/dev/full").exists():
        return
    result = shell(folder, line)
    assert (result.returncode, result.stdout) == (3, "")
    assert (sentence in result.stderr, result.stderr.count("\n")) == (True, bool(sentence)), result.stderr
    assert "a/new" not in DirectoryStore(folder / "d")


#: Copies, and prints to the descriptors 1 and 2 while the archive is open, as a library in C does.
LOUD = """
import contextlib, os
from zarrstore.cli import main
from zarrstore.tools.copying import Copying

def delete(copying, plan):
    for number in (1, 2):
        with contextlib.suppress(OSError):
            os.write(number, b"loud" * 999)

Copying._delete = delete
main(["copy", "d", "x.zip", "-q"])
"""


def test_without_any_stream_an_archive_holds_what_was_copied(folder: Path) -> None:
    (folder / "loud.py").write_text(LOUD)
    shell(folder, f"'{sys.executable}' loud.py </dev/null >&- 2>&-")
    assert b"loud" not in (folder / "x.zip").read_bytes()
    with open_store(folder / "x.zip", mode="r") as store:
        assert dict(store) == {"a/0": b"0", "a/1": b"1"}
