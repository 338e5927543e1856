"""What every test and every docstring example runs under."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import importlib
import io
import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

# Where this is set, each of the hundreds of processes that the tests start would compile every module anew, and pytest
# would rewrite the assertions of every test file and of hypothesis anew: more than half of the whole run's time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

import hypothesis  # noqa: E402 - after the lines above, or it is compiled each time

HERE = Path(__file__).parent

# Options of this run (coverage, in .ci/run) are not those of the runs of pytest that tests start. A worker has read
# them when it comes here; the process that starts the workers hands them on.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.pop("PYTEST_ADDOPTS", None)

# A shell starts what it runs in the background with Ctrl-C ignored, and so would every process that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Folders of tests lie in memory where there is room: a tenth of the run was spent on waiting for the disk. What needs a
# real disk asks for the fixture `disk_path`; .ci/run runs the long tests on a disk.
_MEMORY, _ROOM = "/dev/shm", 4 << 30
if os.access(_MEMORY, os.W_OK) and os.statvfs(_MEMORY).f_bavail * os.statvfs(_MEMORY).f_frsize > _ROOM:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", _MEMORY)

# No database: an example found under one release of zarr would be replayed under another. No deadline: CI is small.
# A run takes a third of the examples, other ones each time; .ci/run takes all, by --hypothesis-profile=long.
for _profile, _examples in (("zarrstore", 34), ("long", 100)):
    hypothesis.settings.register_profile(
        _profile,
        max_examples=_examples,
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.function_scoped_fixture],
    )
hypothesis.settings.load_profile("zarrstore")


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out modules without examples, and those whose third party is not installed; other failures are shown.

    And the tests that run elsewhere (``inside_*.py``: in another interpreter, in a world of their own), unless named.
    """
    if collection_path.name.startswith("inside_"):
        return True
    package = HERE / "zarrstore"
    if collection_path.suffix != ".py" or package not in collection_path.parents:
        return None
    from zarrstore.errors import MissingDependencyError

    if collection_path.name == "__main__.py" or not _has_examples(collection_path):
        return True
    dotted = ".".join(collection_path.relative_to(HERE).with_suffix("").parts).removesuffix(".__init__")
    try:
        importlib.import_module(dotted)
    except MissingDependencyError:
        return True
    except Exception:
        return None
    return None


def _has_examples(path: Path) -> bool:
    return b">>> " in path.read_bytes()


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path: Path) -> Iterator[Any]:
    """Look for examples only in files that hold one: else each worker looks at every function of 540 files."""
    collectors = yield
    if file_path.suffix == ".py" and not _has_examples(file_path):
        return [collector for collector in collectors if type(collector).__name__ != "DoctestModule"]
    return collectors


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse ids that differ from process to process: xdist would refuse the whole run, and only there."""
    for item in items:
        if re.search(r" at 0x[0-9a-f]{6,}", item.nodeid):
            raise pytest.UsageError(f"the id of {item.nodeid} holds an address: give its parameters ids of their own")


def pytest_configure(config: pytest.Config) -> None:
    """Let a timeout show what each coroutine waits for: the stacks of threads show an event loop that is idle."""
    if not config.pluginmanager.hasplugin("timeout"):
        return
    import pytest_timeout

    of_threads = pytest_timeout.dump_stacks

    def dump_stacks(terminal: Any) -> None:
        of_threads(terminal)
        for task in list(getattr(asyncio.tasks, "_all_tasks", None) or getattr(asyncio.tasks, "_scheduled_tasks", ())):
            if not task.done():
                stack = io.StringIO()
                task.print_stack(file=stack)
                terminal.sep("~", title=f"Task {task.get_name()}")
                terminal.write(f"{task!r}\n{stack.getvalue()}")

    pytest_timeout.dump_stacks = dump_stacks


def pytest_collection() -> None:
    """Collect tests without looking for garbage meanwhile: a fifth of the time, for almost all of it stays."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Take what was collected out of the garbage collector: else each `gc.collect` of a test goes through it all."""
    gc.enable()
    gc.collect()
    gc.freeze()


@pytest.fixture
def _places_of_an_example(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    # Not below the folder it runs in, which an example may list.
    with tempfile.TemporaryDirectory(dir=tmp_path_factory.getbasetemp(), ignore_cleanup_errors=True) as temporary:
        monkeypatch.setattr(tempfile, "tempdir", temporary)
        yield


@pytest.fixture(autouse=True)
def _examples_write_nowhere_else(request: pytest.FixtureRequest) -> None:
    """Run examples in a folder of their own: nothing is left in the checkout, or in the machine's temporary folder."""
    if type(request.node).__name__ == "DoctestItem":
        request.getfixturevalue("_places_of_an_example")


# Tests marked `alone` measure time, so no other xdist worker runs a test meanwhile. Everyone takes the turnstile before
# the field: else a stream of ordinary tests, who share the field, would starve one who wants it empty.


@contextmanager
def _locked(path: Path, how: int) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, how)
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _turn(item: pytest.Item) -> Iterator[None]:
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    if run is None:
        yield
        return
    how = fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH
    field = Path(tempfile.gettempdir(), f"zarrstore-tests-{run}.lock")
    with _locked(field.with_suffix(".turnstile"), fcntl.LOCK_EX) as turnstile, _locked(field, how):
        fcntl.flock(turnstile, fcntl.LOCK_UN)
        yield


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    with _turn(item):
        try:
            return (yield)
        except pytest.fail.Exception as exc:
            # A timeout while pytest writes about a test, which would end the worker, and with it the whole run.
            report = pytest.TestReport(item.nodeid, item.location, {}, "failed", f"beside the test: {exc}", "call")
            item.ihook.pytest_runtest_logreport(report=report)
            item.session._setupstate.teardown_exact(None)
            return True


# What the markers leave out is printed at the end of a run. Under xdist the workers collect, and each collects all.

_LONG = ("slow", "nightly")
_left_out: dict[str, int] = dict.fromkeys(_LONG, 0)


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    for name in _LONG:
        _left_out[name] += sum(item.get_closest_marker(name) is not None for item in items)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    _left_out.update(getattr(node, "workeroutput", {}).get("left_out", {}))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if any(_left_out.values()):
        counts = ", ".join(f"{count} {name}" for name, count in _left_out.items())
        terminalreporter.write_line(f"left out: {counts}: choose them with -m slow or -m nightly")
    if hypothesis.settings.default.max_examples < 100:
        terminalreporter.write_line("two thirds of random examples left out: try all with --hypothesis-profile=long")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workerinput"):
        session.config.workeroutput["left_out"] = dict(_left_out)
        return
    run = getattr(session.config.pluginmanager.get_plugin("dsession"), "testrunuid", None)
    for suffix in (".lock", ".turnstile") if run else ():
        Path(tempfile.gettempdir(), f"zarrstore-tests-{run}.lock").with_suffix(suffix).unlink(missing_ok=True)


# Where every peer is required, as in CI, a test that did not run for want of one did not pass.


def _is_for_want(reason: object) -> bool:
    return bool(os.environ.get("ZARRSTORE_REQUIRE_PEERS")) and any(
        sign in str(reason) for sign in ("Skipped: needs ", "could not import")
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Iterator[None]:
    report = yield
    if report.skipped and _is_for_want(report.longrepr):
        report.outcome = "failed"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    report = yield
    if report.skipped and _is_for_want(report.longrepr):
        report.outcome = "failed"
        report.longrepr = str(report.longrepr)
    return report


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Let ``-n auto`` start a worker more than there are cores: a third of the time is spent on waiting for servers."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Let a worker that has nothing left take tests from another: a quarter of the run was one worker's long tail."""
    if getattr(config.option, "numprocesses", None) and config.option.dist == "no":
        config.option.dist = "worksteal"
