"""The guard of what belongs to a process: forks from several threads, the exit beside daemon threads, interrupts."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from zarrstore.errors import ClosedStoreError, LockedStoreError
from zarrstore.stores import _process
from zarrstore.stores._process import Resource

CHECKOUT = Path(__file__).parent.parent.parent


class Ledger(Resource):
    """Two numbers that are equal whenever nobody is in the middle of a call, and what the hooks found."""

    def __init__(self, label="Ledger()"):
        super().__init__(label)
        self.first = self.second = 0
        self.calls: list[str] = []
        self.register()

    def add(self, pause=0.0):
        self.first += 1
        time.sleep(pause)
        self.second += 1

    def reopen(self):
        self.calls.append("reopen")

    def before_fork(self):
        self.calls.append(f"before_fork {self.first == self.second}")

    def after_fork_in_child(self):
        self.calls.append(f"after_fork_in_child {self.quiet}")

    def at_exit(self):
        self.calls.append("at_exit")


def run_script(script, *arguments, timeout=30):
    """Return what a script prints; a script that hangs is an error."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=CHECKOUT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def status_of_child(work):
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as exc:
            os.write(2, f"{exc!r}\n".encode())
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# Forks --------------------------------------------------------------------------------------------------------------

FORKS = """
import os, sys, threading
from zarrstore.stores.lmdb import LMDBStore
from zarrstore.stores.sqlite import SQLiteStore

kinds = {"lmdb": [LMDBStore] * 2, "sqlite": [SQLiteStore] * 2, "both": [LMDBStore, SQLiteStore]}[sys.argv[1]]
first, second = (kind(f"{sys.argv[2]}/{n}") for n, kind in enumerate(kinds))
first["a"] = second["a"] = b"1"
statuses = []

def fork():
    for _ in range(15):
        child = os.fork()
        if not child:
            os._exit(0 if first["a"] == second["a"] == b"1" else 1)
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

threads = [threading.Thread(target=fork) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(statuses == [0] * 60)
"""


@pytest.mark.parametrize("kinds", ["lmdb", "sqlite", "both"])
def test_threads_that_fork_at_once_do_not_wait_for_each_other_for_ever(tmp_path, kinds):
    assert run_script(FORKS, kinds, tmp_path)[0] == "True\n"


@pytest.mark.parametrize("how", ["shared", "exclusive"])
def test_a_fork_finds_no_call_half_way(how):
    ledger = Ledger()
    stop = threading.Event()

    def work():
        while not stop.is_set():
            if how == "shared":
                ledger.use(lambda: ledger.add(0.002))
            else:
                with ledger.turn:
                    ledger.add(0.002)

    thread = threading.Thread(target=work)
    thread.start()
    try:

        def child():
            assert ledger.first == ledger.second
            ledger.use(ledger.add)
            with ledger.turn:
                ledger.add()

        assert [status_of_child(child) for _ in range(10)] == [0] * 10
    finally:
        stop.set()
        thread.join()
    assert ledger.calls.count("before_fork True") == 10
    assert "before_fork False" not in ledger.calls
    ledger.unregister()


@pytest.mark.parametrize("how", ["shared", "exclusive", "registry"])
def test_a_fork_waits_so_long_and_no_longer(monkeypatch, how):
    monkeypatch.setattr(_process, "FORK_WAITS", 0.1)
    ledger = Ledger()
    inside, leave = threading.Event(), threading.Event()

    def hang():
        inside.set()
        leave.wait(20)

    def work():
        if how == "shared":
            ledger.use(hang)
            return
        with ledger.turn if how == "exclusive" else _process.registry_lock:
            hang()

    thread = threading.Thread(target=work)
    thread.start()
    inside.wait()
    try:

        def child():
            with _process.registry_lock:
                pass
            if how == "registry":
                return ledger.use(ledger.add)
            assert ledger.calls[-1] == "after_fork_in_child False"
            with pytest.raises(LockedStoreError, match="fork when no thread uses the store"):
                ledger.use(ledger.add)

        assert status_of_child(child) == 0
    finally:
        leave.set()
        thread.join()
    ledger.use(ledger.add)  # in the parent all is well
    assert status_of_child(lambda: ledger.use(ledger.add)) == 0
    ledger.unregister()


def test_a_child_forks_in_its_turn(tmp_path):
    ledger = Ledger()

    def child():
        ledger.use(ledger.add)
        assert status_of_child(lambda: ledger.use(ledger.add)) == 0
        assert (ledger.first, ledger.second) == (1, 1)

    assert status_of_child(child) == 0
    assert (ledger.first, ledger.second) == (0, 0)
    ledger.unregister()


def test_no_resource_is_opened_while_another_thread_forks():
    """Otherwise it would cross the fork without its hooks."""
    ledger, forking, order = Ledger(), threading.Event(), []

    def slow_hook():
        forking.set()
        time.sleep(0.2)
        order.append("forked")

    ledger.before_fork = slow_hook
    thread = threading.Thread(target=status_of_child, args=(lambda: None,))
    thread.start()
    forking.wait()
    other = Ledger()
    order.append("registered")
    thread.join()
    assert order == ["forked", "registered"]
    for resource in (ledger, other):
        resource.unregister()


def test_a_resource_that_nobody_holds_takes_no_part():
    before = len(_process.registered(Ledger))
    ledger = Ledger()
    assert len(_process.registered(Ledger)) == before + 1
    del ledger
    gc.collect()
    assert len(_process.registered(Ledger)) == before


# The end of the interpreter -----------------------------------------------------------------------------------------

EXIT = """
import os, sys, threading, time
from zarrstore.stores.lmdb import LMDBStore
from zarrstore.stores.sqlite import SQLiteStore
from tests.support import crash

store = {"lmdb": LMDBStore, "sqlite": SQLiteStore}[sys.argv[1]](sys.argv[2])
threading.excepthook = lambda failure: os.write(1, f"! {failure.exc_type.__name__}\\n".encode())

def write(worker):
    for version in range(1, 10**9):
        store[f"k{worker}"] = crash.value(worker, version, 40_000)
        os.write(1, f"{worker} {version}\\n".encode())

for worker in range(3):
    threading.Thread(target=write, args=(worker,), daemon=True).start()
time.sleep(float(sys.argv[3]))
"""


@pytest.mark.parametrize("kind", ["lmdb", "sqlite"])
def test_an_interpreter_that_exits_beside_writing_daemon_threads_loses_nothing(tmp_path, kind):
    from tests.support import crash
    from zarrstore.stores.lmdb import LMDBStore
    from zarrstore.stores.sqlite import SQLiteStore

    for round_ in range(4):
        place = tmp_path / f"{round_}"
        out, err = run_script(EXIT, kind, place, 0.02 * round_)
        assert err == ""
        failures = {line for line in out.splitlines() if line.startswith("!")}
        assert failures <= {"! ClosedStoreError"}
        acknowledged = dict(map(int, line.split()) for line in out.splitlines() if not line.startswith("!"))
        with {"lmdb": LMDBStore, "sqlite": SQLiteStore}[kind](place) as store:
            for worker, version in acknowledged.items():
                found = crash.version_of(worker, store[f"k{worker}"])
                assert version <= found <= version + 1


def test_the_exit_stops_what_daemon_threads_do_and_lets_a_call_end(tmp_path):
    out, err = run_script(
        """
        import atexit, os, sys, threading, time
        from zarrstore.stores._process import Resource

        class Ledger(Resource):
            first = second = 0
            def add(self):
                self.first += 1
                time.sleep(0.1)
                self.second += 1
            def at_exit(self):
                print("at_exit", self.first == self.second > 0, flush=True)

        ledger = Ledger("Ledger()")
        ledger.register()
        def work():
            try:
                while True:
                    ledger.use(ledger.add)
            except Exception as exc:
                os.write(1, f"{exc}\\n".encode())
        threading.Thread(target=work, daemon=True).start()
        def user(): print("a handler of the user's still may", ledger.use(lambda: "write"), flush=True)
        atexit.register(user)
        while not ledger.first:
            time.sleep(0.001)
        """
    )
    assert err == ""
    assert out.splitlines()[:2] == ["a handler of the user's still may write", "at_exit True"]
    assert out.splitlines()[2:] in ([], ["Ledger() is closed; open it again"])


# Interrupts ---------------------------------------------------------------------------------------------------------

INTERRUPTS = """
import os, signal, sys, threading, time
from tests.stores.test_process import Ledger
from zarrstore.stores import _process

ledger = Ledger()
main = threading.main_thread().ident
armed = False  # so that no interrupt comes between two tries
count = 0
ended = []

def interrupt(number, frame):
    global armed
    if armed:
        armed = False
        raise KeyboardInterrupt

def send_interrupts():
    start = time.monotonic()
    # By what came, not by the clock alone: a busy machine lets few of them through.
    while (passed := time.monotonic() - start) < 1.5 or (count <= 100 and passed < 20):
        time.sleep(0.0003)
        signal.pthread_kill(main, signal.SIGINT)
    ended.append(1)

signal.signal(signal.SIGINT, interrupt)
threading.Thread(target=send_interrupts, daemon=True).start()
steps = [
    lambda: ledger.use(ledger.add),
    lambda: ledger.alone(lambda: None),
    lambda: ledger.admit(),
    lambda: ledger.register(),
]
while not ended:
    try:
        armed = True
        while not ended:
            for step in steps:
                step()
    except KeyboardInterrupt:
        count += 1
    if ledger.busy:
        os.write(1, b"still counted as busy\\n")
        os._exit(1)

def another_thread():
    ledger.alone(lambda: None)
    _process.registry_lock.acquire()
    print("free", count > 100)

thread = threading.Thread(target=another_thread, daemon=True)
thread.start()
thread.join(10)
sys.stdout.flush()
os._exit(0)
"""


def test_an_interrupt_at_any_step_leaves_no_lock_held(tmp_path):
    assert run_script(INTERRUPTS)[0] == "free True\n"


# One thread at a time -----------------------------------------------------------------------------------------------


def test_alone_is_alone():
    ledger = Ledger()
    problems: list[int] = []
    done = threading.Event()

    def use():
        while not done.is_set():
            ledger.use(lambda: time.sleep(0.0005))

    def check():
        if ledger.busy:
            problems.append(len(ledger.busy))

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(50):
        ledger.alone(check)
    done.set()
    for thread in threads:
        thread.join()
    assert problems == [0] * len(problems)
    ledger.unregister()


def test_a_resource_that_ended_says_so_whatever_its_end_raised():
    ledger = Ledger()
    ledger.use(ledger.add)
    with pytest.raises(OSError, match="no space"):
        ledger.end(lambda: (_ for _ in ()).throw(OSError("no space")))
    with pytest.raises(ClosedStoreError, match=r"Ledger\(\) is closed"):
        ledger.use(ledger.add)
    assert ledger not in _process.registered(Ledger)
