"""Completion in real shells: what Tab offers, in bash, zsh and fish."""

from __future__ import annotations

import os
import pty
import select
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import zarrstore
from tests.support import peers
from zarrstore import DirectoryStore

ROOT = Path(__file__).parent.parent.parent

pytestmark = pytest.mark.slow  # each Tab starts a process


@pytest.fixture
def place(tmp_path):
    """A folder with a store in it, and the environment of a shell that finds zarrstore."""
    zarrstore.init_group(DirectoryStore(tmp_path / "data.zarr"), path="ocean")
    program = tmp_path / "bin" / "zarrstore"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m zarrstore "$@"\n')
    program.chmod(0o755)
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    environment = {"PATH": path, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "TERM": "xterm", "LC_ALL": "C.UTF-8"}
    return tmp_path, environment


def run(place, *command: str) -> str:
    folder, environment = place
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=110, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


#: What zsh sends when its line editor waits: what is typed earlier is not completed.
READY = b"\x1b[?2004h"

BASH = """
eval "$(zarrstore completion bash)"
complete -p zarrstore
offer() {
    COMPREPLY=(); COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
    _zarrstore_completion zarrstore; printf '%s\\n' "${COMPREPLY[@]}"
}
offer zarrstore veri
offer zarrstore ls data.zarr oc
"""


def test_bash_completes_verbs_and_paths_within_a_store(place):
    lines = run(place, "bash", "--norc", "-c", BASH).splitlines()
    assert "-F _zarrstore_completion zarrstore" in lines[0]
    assert lines[1:] == ["verify", "ocean/"]


def test_fish_completes_verbs_files_and_paths_within_a_store(place):
    peers.require("fish")
    script = "zarrstore completion fish | source; for line in $argv; complete -C $line; end"
    lines = run(place, "fish", "-N", "-c", script, "zarrstore veri", "zarrstore ls data", "zarrstore ls data.zarr oc")
    assert [line.split("\t")[0] for line in lines.splitlines()] == ["verify", "data.zarr/", "ocean/"]


def test_zsh_completes_verbs_files_and_paths_within_a_store(place):
    peers.require("zsh")
    folder, environment = place
    pid, terminal = pty.fork()
    if pid == 0:  # pragma: no cover
        os.chdir(folder)
        os.execvpe("zsh", ["zsh", "-f", "-i"], environment)
    try:
        setup = "autoload -Uz compinit; compinit -u -D; eval \"$(zarrstore completion zsh)\"; print rea''dy\n"
        os.write(terminal, setup.encode())
        expect(terminal, b"ready", READY)
        # Tab puts what it found into the line, which is run as it is then.
        os.write(terminal, b"zarrstore cat dat\t ocean/.zgr\t\n")
        expect(terminal, b'"zarr_format"', READY)
        os.write(terminal, b"zarrstore comple\tbash\n")
        expect(terminal, b"_zarrstore_completion()")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)


def expect(terminal: int, *texts: bytes, seconds: float = 100) -> None:
    """Read what the shell shows until some texts came, one after the other."""
    seen = b""
    until = time.monotonic() + seconds
    for text in texts:
        while text not in seen:
            ready, _, _ = select.select([terminal], [], [], max(0.0, until - time.monotonic()))
            assert ready, seen
            seen += os.read(terminal, 4096)
        seen = seen[seen.index(text) + len(text) :]
