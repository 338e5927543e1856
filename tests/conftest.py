"""Fixtures that any test may ask for: servers, fences, other interpreters."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import cases, peers
from tests.support.servers import proxy as proxies
from tests.support.servers import s3, static
from tests.support.world import EscapeSentinel

#: The process that keeps the S3 server up while this run lasts.
_HOLDER: pytest.StashKey[subprocess.Popen[bytes]] = pytest.StashKey()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what is marked ``needs_peer("zarr2")`` where that is not here."""
    for marker in item.iter_markers("needs_peer"):
        peers.require(*marker.args)


def pytest_collection_finish(session: pytest.Session) -> None:
    cases.share_histories({cls for item in session.items if hasattr(cls := getattr(item, "cls", None), "examples")})
    # All workers would wait while it starts. In a process of its own: tests count threads.
    asks = any("s3_server" in getattr(item, "fixturenames", ()) for item in session.items)
    if asks and os.environ.get("PYTEST_XDIST_WORKER") == "gw0":
        command = [sys.executable, s3.__file__, "hold"]
        holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        session.config.stash[_HOLDER] = holder


def pytest_sessionfinish(session: pytest.Session) -> None:
    holder = session.config.stash.get(_HOLDER, None)
    if holder is not None:
        holder.communicate()  # the end of its input


@pytest.fixture
def sentinel(tmp_path: Path) -> Iterator[EscapeSentinel]:
    """Armed over the test's own folder; the test fails if anything outside of it was touched."""
    with EscapeSentinel(tmp_path) as watching:
        yield watching
    assert watching.escapes == []


class Clock:
    """The clock that stores ask, `time.monotonic` and `time.perf_counter`, standing still until told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def pass_seconds(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return a clock that the test moves: what depends on ages does not depend on how busy the machine is."""
    standing = Clock()
    monkeypatch.setattr(time, "monotonic", standing)
    monkeypatch.setattr(time, "perf_counter", standing)
    return standing


@pytest.fixture
def disk_path() -> Iterator[Path]:
    """Yield a folder on a real disk, for tests whose subject is how a disk is asked."""
    disk = "/var/tmp" if os.path.isdir("/var/tmp") else None
    with tempfile.TemporaryDirectory(prefix="zarrstore-", dir=disk) as path:
        yield Path(path)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[s3.S3Server]:
    """Yield the real S3 server, shared by all workers and sessions of this machine."""
    with s3.session() as server:
        yield server


@pytest.fixture
def s3_bucket(s3_server: s3.S3Server) -> Iterator[str]:
    """Yield the name of a fresh bucket, removed afterwards with all that is in it."""
    name = s3_server.make_bucket()
    yield name
    s3_server.drop_bucket(name)


@pytest.fixture(scope="module")
def s3_proxy(s3_server: s3.S3Server) -> Iterator[proxies.Proxy]:
    """Yield a proxy in front of the S3 server. One a module: of one URL, fsspec makes one client, of 0.1 s."""
    with proxies.Proxy(s3_server.endpoint) as proxy:
        yield proxy


@pytest.fixture
def s3_counted(s3_server: s3.S3Server, s3_proxy: proxies.Proxy) -> Iterator[tuple[s3.S3Server, proxies.Proxy]]:
    """Yield the S3 server as seen through a proxy, and the proxy, which counts and breaks requests."""
    s3_proxy.reset()
    yield s3_server.at(s3_proxy.url), s3_proxy
    s3_proxy.heal()
    s3_proxy.become_idle()


@pytest.fixture
def nginx() -> Iterator[Callable[..., static.Nginx]]:
    """Yield ``nginx(root, directives="")``, which serves a folder; all are stopped after the test."""
    with contextlib.ExitStack() as stack:
        yield lambda root, directives="": stack.enter_context(static.nginx(Path(root), directives))


@pytest.fixture
def http_server() -> Iterator[Callable[[Path], str]]:
    """Yield ``http_server(root)``, which serves a folder with Python's http.server and returns the URL."""
    with contextlib.ExitStack() as stack:
        yield lambda root: stack.enter_context(static.python_server(Path(root)))


@pytest.fixture
def proxy() -> Iterator[Callable[[str], proxies.Proxy]]:
    """Yield ``proxy(url)``: a proxy in front of any of these servers, which counts and breaks requests."""
    with contextlib.ExitStack() as stack:
        yield lambda url: stack.enter_context(proxies.Proxy(url))
