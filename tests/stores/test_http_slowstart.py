"""HTTPStore opens few connections at once to a server that has not answered, and more as it answers."""

from __future__ import annotations

import gc
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from zarrstore.stores.http.slowstart import FIRST, SlowStart

pytest.importorskip("urllib3", reason="needs urllib3: pip install zarrstore[http]")

from zarrstore.stores.http import HTTPStore


class _HeldServer:
    """Takes connections, and answers each request with two bytes, the first when no further connection comes."""

    def __init__(self, keeps_open: bool) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.n_before_first_answer = self.n_connections = 0
        self._tail = b"" if keeps_open else b"Connection: close\r\n"
        self._keeps_open = keeps_open

    def serve(self) -> None:
        waiting: list[socket.socket] = []
        while not waiting or select.select([self.socket], [], [], 0.3)[0]:
            waiting.append(self._accept())
        self.n_before_first_answer = len(waiting)
        for connection in waiting:
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()
        while True:
            threading.Thread(target=self._answer, args=(self._accept(),), daemon=True).start()

    def _accept(self) -> socket.socket:
        connection = self.socket.accept()[0]
        self.n_connections += 1
        return connection

    def _answer(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as requests:
            while requests.readline():
                while requests.readline().strip():
                    pass
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + self._tail + b"\r\nok")
                if not self._keeps_open:
                    return


@contextmanager
def held_server(keeps_open: bool) -> Iterator[_HeldServer]:
    server = _HeldServer(keeps_open)

    def serve() -> None:
        try:
            server.serve()
        except OSError:  # the socket was shut down
            pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.socket.shutdown(socket.SHUT_RDWR)
        thread.join(60)
        server.socket.close()


@pytest.mark.parametrize("keeps_open", [True, False], ids=["kept open", "closed"])
def test_few_connections_wait_for_the_first_answer_of_a_server(keeps_open: bool) -> None:
    keys = [f"a/{n}" for n in range(100)]
    with held_server(keeps_open) as server, HTTPStore(server.url, workers=32) as store:
        # One value's size is known, so that the batch asks for all at once.
        store._value_sizes.learn("a/0", 2)
        assert dict(store.getitems(keys)) == dict.fromkeys(keys, b"ok")
    assert 1 <= server.n_before_first_answer <= FIRST  # 32 once: Python's own server queues 5
    assert server.n_connections == 100 if not keeps_open else server.n_connections <= 32


def test_each_connection_that_is_answered_and_kept_open_lets_one_more_begin() -> None:
    start = SlowStart(32)
    limits = []
    for _ in range(4):
        opened = [start.enter(threading.Event()) for _ in range(start.limit)]
        for connection in opened:
            start.leave(connection, kept_open=True)
        limits.append(start.limit)
    assert limits == [8, 16, 32, 32]


def test_where_the_server_closes_each_connection_the_limit_grows_by_one_in_a_round() -> None:
    start = SlowStart(32)
    for expected in (4, 5):
        opened = [start.enter(threading.Event()) for _ in range(start.limit)]
        assert len(opened) == expected
        for connection in opened:
            start.leave(connection, kept_open=False)


def test_the_limit_does_not_grow_past_a_connection_that_waits() -> None:
    start = SlowStart(32)
    lost = start.enter(threading.Event())
    for _ in range(100):
        start.leave(start.enter(threading.Event()), kept_open=True)
    assert (start.limit, start.pending) == (3 * FIRST - 1, 1)
    before = start.limit
    start.slow()
    start.leave(lost, kept_open=True)
    assert start.limit == before // 2
    start.leave(start.enter(threading.Event()), kept_open=True)
    assert start.limit == before // 2  # for good


def test_a_connection_that_was_dropped_or_closed_unanswered_makes_room() -> None:
    start = SlowStart(1)
    first = start.enter(threading.Event())
    start.leave(first)
    start.leave(first)
    assert (start.pending, start.limit) == (0, 1)
    second = start.enter(threading.Event())
    assert second is not first
    del second
    gc.collect()
    assert start.pending == 0
    third = start.enter(threading.Event())  # would wait for ever otherwise
    start.leave(third, kept_open=True)
