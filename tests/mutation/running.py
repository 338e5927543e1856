"""Run the focused tests of a module against one planted change after the other, each in a process of its own.

The heavy packages are imported once; each change is tried in a fork, in which an import hook hands the changed source
to Python before zarrstore is imported. The first failing test ends a trial, so the quickest tests run first: those that
the run without a change found to be quick.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from tests.mutation.named import NAMED, Named
from tests.mutation.planting import Change, changes_of
from tests.mutation.rooms import FOCUSED

__all__ = ["Trial", "sample", "try_change", "unchanged_passes"]

ROOT = Path(__file__).resolve().parent.parent.parent
#: Seconds after which the tests of a changed module are taken to hang: that is noticed, too.
PATIENCE = 180.0
#: Exit codes that say nothing of a change, and why: those of pytest, and of a child that did not get so far.
_NOT_PLANTED = 72
_NO_TRIAL = {
    int(pytest.ExitCode.INTERNAL_ERROR): "an internal error of pytest",
    int(pytest.ExitCode.USAGE_ERROR): "a file of tests is not there",
    int(pytest.ExitCode.NO_TESTS_COLLECTED): "no test was chosen",
    _NOT_PLANTED: "the module came from elsewhere",
}

#: Seconds that each test took without a change, by its id.
_durations: dict[str, float] = {}


class Trial(NamedTuple):
    """A change and whether a test noticed it."""

    change: Change | Named
    noticed: bool
    seconds: float


class _Planted(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Finds one module, with another source."""

    def __init__(self, name: str, source: str) -> None:
        self.name, self.source = name, source

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.name:
            return None
        genuine = importlib.machinery.PathFinder.find_spec(fullname, path)
        assert genuine is not None
        locations = genuine.submodule_search_locations
        spec = importlib.util.spec_from_loader(fullname, self, origin=genuine.origin, is_package=locations is not None)
        assert spec is not None
        spec.submodule_search_locations = locations
        return spec

    def get_source(self, fullname: str) -> str:
        return self.source


class _QuickestFirst:
    """A plugin of pytest: runs the quickest tests first, and writes down how long each took."""

    def __init__(self, record: str) -> None:
        self.record = record
        self.seconds: dict[str, float] = {}

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items.sort(key=lambda item: _durations.get(item.nodeid, 0.0))

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration

    def pytest_sessionfinish(self) -> None:
        Path(self.record).write_text(json.dumps(self.seconds))


def sample(module: str, count: int | None, seed: int = 0) -> list[Change]:
    """Return some of the changes of a module, the same for the same seed."""
    changes = list(changes_of(module))
    if count is None or count >= len(changes):
        return changes
    return random.Random(f"{seed} {module}").sample(changes, count)


def try_change(change: Change | Named, tests: str | None = None) -> Trial:
    """Plant a change and run the focused tests until the first fails."""
    start = time.monotonic()
    code = _in_fork(tests or (change.tests if isinstance(change, Named) else FOCUSED[change.module]), change)
    assert code not in _NO_TRIAL, f"{change.name}: the tests did not run: {_NO_TRIAL[code]}"
    return Trial(change, code != 0, time.monotonic() - start)


def unchanged_passes(module: str) -> bool:
    """Tell whether the focused tests pass without a change: otherwise every change would look noticed."""
    return _in_fork(FOCUSED[module], None) == 0


def _in_fork(tests: str, change: Change | Named | None) -> int:
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            os.setsid()
            code = _child(tests, change)
        finally:
            os._exit(code)
    deadline = time.monotonic() + PATIENCE
    try:
        while time.monotonic() < deadline:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.05)
        return 71
    finally:
        # Its children too: a copy that was killed half way, a server.
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)
        if change is None:
            with suppress(FileNotFoundError):
                _durations.update(json.loads(Path(_record(pid)).read_text()))
        Path(_record(pid)).unlink(missing_ok=True)
        shutil.rmtree(_folder(pid), ignore_errors=True)


def _record(pid: int) -> str:
    return f"{_folder(pid)}.json"


def _folder(pid: int) -> str:
    return os.path.join(os.environ.get("MUTATION_TMP", tempfile.gettempdir()), f"zarrstore-mutation-{pid}")


def _plant(change: Change | Named) -> bool:
    """Import the changed module; tell whether it is that.

    Before pytest runs, whose hook comes first: it imports plugins, and what they are distributed with, by itself.
    """
    name = f"zarrstore.{change.module}"
    sys.meta_path.insert(0, _Planted(name, change.source))
    return isinstance(importlib.import_module(name).__loader__, _Planted)


def _child(tests: str, change: Change | Named | None) -> int:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    os.chdir(ROOT)
    for name in [name for name in sys.modules if name.partition(".")[0] == "zarrstore"]:
        del sys.modules[name]
    for name in [name for name in sys.modules if name.startswith("tests.") and not name.startswith("tests.mutation")]:
        del sys.modules[name]
    if change is not None and not _plant(change):
        return _NOT_PLANTED
    options = [
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:randomly",
        "--hypothesis-profile=long",
        "-m",
        "not slow and not nightly and not alone",
    ]
    plugin = _QuickestFirst(_record(os.getpid()))
    return int(pytest.main([*options, f"--basetemp={_folder(os.getpid())}", *tests.split()], [plugin]))


def main(args: Sequence[str]) -> None:
    """``python -m tests.mutation.running [COUNT] [MODULE ... | named]``: print what was not noticed, and a summary."""
    import click  # noqa: F401 - imported once for all forks
    import hypothesis  # noqa: F401
    import numcodecs  # noqa: F401
    import numpy  # noqa: F401
    import rich  # noqa: F401

    count = int(args[0]) if args and args[0].isdecimal() else None
    modules = [arg for arg in args if not arg.isdecimal()] or list(FOCUSED)
    if modules == ["named"]:
        for fault in NAMED:
            print(f"{'noticed' if try_change(fault).noticed else 'NOT NOTICED'}: {fault.name}", flush=True)
        return
    total = missed = 0
    for module in modules:
        if not unchanged_passes(module):
            print(f"{module}: the tests do not pass unchanged", flush=True)
            continue
        for change in sample(module, count):
            trial = try_change(change)
            total += 1
            if not trial.noticed:
                missed += 1
                print(f"not noticed: line {change.line}: {change.name}", flush=True)
        print(f"{module}: {total:,} planted so far, {missed:,} not noticed", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
