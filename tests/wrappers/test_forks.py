"""A child forked while another thread is inside a wrapper uses the wrapper as if nobody were."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from typing import Any

import pytest

from tests.support.roster import WRAPPERS
from zarrstore import DictStore
from zarrstore.wrappers.usagelog import UsageLogStore

LOCKS = (type(threading.Lock()), type(threading.RLock()))


def locks_of(store: Any) -> list[Any]:
    """Return the locks of a wrapper, and those of its own parts."""
    parts = [part for part in vars(store).values() if type(part).__module__.startswith("zarrstore.")]
    holders = [store, *(part for part in parts if hasattr(part, "__dict__") and part is not store.inner)]
    return [lock for holder in holders for lock in vars(holder).values() if isinstance(lock, LOCKS)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", [name for name in WRAPPERS if name != "ReadOnlyStore"])
def test_a_child_forked_while_another_thread_holds_a_lock_does_not_wait_for_it(tmp_path, name):
    store = WRAPPERS[name](DictStore(), tmp_path)
    store["a"] = b"1"
    held, end = threading.Event(), threading.Event()

    def hold() -> None:
        with contextlib.ExitStack() as stack:
            for lock in locks_of(store):
                stack.enter_context(lock)
            held.set()
            end.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    child = os.fork()
    if not child:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)  # whoever waits for a thread of the parent is ended, and fails the test
        code = 1
        try:
            store["b"] = b"2"
            code = 0 if dict(store.items()) == {"a": b"1", "b": b"2"} else 3
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    end.set()
    holder.join()
    assert status == 0, "the child waited for a lock that no thread of its own holds"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_forked_while_another_thread_writes_into_the_log_writes_its_own_lines(tmp_path):
    path = tmp_path / "log"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    filler = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    store = UsageLogStore(DictStore(), path)
    with contextlib.suppress(BlockingIOError):
        for _ in range(1 << 12):  # until the pipe is full, and whoever writes into it waits
            os.write(filler, b"x" * 4096)
    writer = threading.Thread(target=store.__setitem__, args=("a", b"1"))
    writer.start()
    while not store._lock.locked():
        time.sleep(0.01)
    child = os.fork()
    if not child:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)
        try:
            store["b"] = b"2"
        finally:
            os._exit(0)
    ended = 0
    while not ended:
        with contextlib.suppress(BlockingIOError):
            os.read(reader, 1 << 16)
        ended, status = os.waitpid(child, os.WNOHANG)
    while writer.is_alive():
        with contextlib.suppress(BlockingIOError):
            os.read(reader, 1 << 16)
    store.close()
    os.close(reader)
    os.close(filler)
    assert status == 0, "the child waited for the buffer of a file that no thread of its own writes to"
