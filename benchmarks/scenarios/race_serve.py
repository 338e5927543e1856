"""A directory by HTTP: ``zarrstore serve`` beside nginx, asked by wrk with 16 connections that stay open.

Wall time is that of one answered request (its inverse is the requests per second); processor time is that of the
server's processes alone. wrk works on the same processors. ``python tests/support/peers.py install nginx wrk`` brings
both.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.timing import Case

TITLE = "Values by HTTP"
CONTESTANTS = ("zarrstore serve", "nginx")
_SECONDS = 3
_NGINX = """
daemon off;
worker_processes {workers};
pid {folder}/pid;
error_log {folder}/errors;
events {{ worker_connections 1024; }}
http {{
    types {{ }}
    default_type application/octet-stream;
    access_log off;
    sendfile on;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{ listen 127.0.0.1:{port}; root {data}; }}
}}
"""


def cases(quick: bool) -> list[Case]:
    if quick:
        return []
    return [
        Case(f"{nbytes >> 10:,} KiB, {workers} workers", CONTESTANTS, {"nbytes": nbytes, "workers": workers}, rounds=5)
        for nbytes in (1 << 10, 1 << 20)
        for workers in (1, 2)
    ]


def measure(contestant: str, folder: str, nbytes: int, workers: int) -> dict[str, Any]:
    data = Path(folder, "data")
    (data / "foo").mkdir(parents=True)
    names = [f"foo/{i}.0" for i in range(100 if nbytes < 1 << 16 else 10)]
    for name in names:
        (data / name).write_bytes(os.urandom(nbytes))
    script = Path(folder, "paths.lua")
    paths = ", ".join(f'"/{name}"' for name in names)
    script.write_text(
        f"local paths = {{{paths}}}\nlocal n = 0\n"
        "request = function() n = n % #paths + 1; return wrk.format('GET', paths[n]) end\n"
    )
    with _running(contestant, Path(folder), data, workers) as (pid, url):
        _load(url, script, workers, 1)
        before = _processor(pid)
        count, seconds = _load(url, script, workers, _SECONDS)
        return {"cpu_us": (_processor(pid) - before) / count * 1e6, "wall_us": seconds / count * 1e6}


@contextmanager
def _running(contestant: str, folder: Path, data: Path, workers: int) -> Iterator[tuple[int, str]]:
    from tests.support.servers.static import free_port, wait_for_port

    port = free_port()
    if contestant == "nginx":
        folder.chmod(0o755)
        settings = folder / "nginx.conf"
        settings.write_text(_NGINX.format(folder=folder, port=port, data=data, workers=workers))
        # Its workers, which root gives another user, are to read what only its owner may.
        user = ["-g", "user root;"] if os.getuid() == 0 else []
        command = ["nginx", "-p", str(folder), "-c", str(settings), "-e", str(folder / "errors"), *user]
    else:
        command = [sys.executable, "-m", "zarrstore", "serve", str(data)]
        command += ["--port", str(port), "--workers", str(workers)]
    log = folder / "log"
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            wait_for_port(port, process, log, 60)
            time.sleep(workers)  # a second worker starts after the first
            yield process.pid, f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def _load(url: str, script: Path, workers: int, seconds: int) -> tuple[int, float]:
    """Return how many requests were answered, and in how many seconds."""
    command = ["wrk", f"-t{workers}", "-c16", f"-d{seconds}", "-s", str(script), url]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "Non-2xx" not in text, text
    assert "Socket errors" not in text, text
    found = re.search(r"(\d+) requests in ([\d.]+)s", text)
    assert found is not None, text
    return int(found[1]), float(found[2])


def _processor(pid: int) -> float:
    """Return the seconds that a process and its children have worked."""
    ticks = 0
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = place.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(place.parent.name) == pid or int(fields[1]) == pid:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
