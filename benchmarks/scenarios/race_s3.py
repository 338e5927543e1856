"""To a real S3 server on this machine and back, each time new and again unchanged, beside aws, rclone and s5cmd.

All of them are commands, start-up included. Each turn is a bucket of its own: `up` from a directory, `up_again` with
nothing changed, `down` to a directory, `down_again`; wall seconds, and processor seconds of the command (`_cpu`). The
server works on the same processors. ``python tests/support/peers.py install aws rclone s3`` brings the others.

The server stays up from the first turn to the end of the run. What is in memory at a time: the values three times, at
the source, at the server and at the destination, so 1 GiB here and 10 GiB in `race_s3_full`.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.timing import Case, timed

TITLE = "A race to S3 and back"
CONTESTANTS = ("zarrstore fsspec", "zarrstore obstore", "aws s3 sync", "rclone", "s5cmd")
#: What each turn does, in this order.
STEPS = ("up", "up_again", "down", "down_again")
#: Number and bytes of the values; `race_s3_full` has ten times as many.
SIZES = ((1000, 1 << 10), (20, 16 << 20))


def cases(quick: bool, sizes: tuple[tuple[int, int], ...] = SIZES, longest: float = float("inf")) -> list[Case]:
    if quick:
        return []
    return [
        Case(f"{n:,} x {nbytes >> 10:,} KiB", CONTESTANTS, {"n": n, "nbytes": nbytes}, 3, longest)
        for n, nbytes in sizes
    ]


def measure(contestant: str, folder: str, n: int, nbytes: int) -> dict[str, Any]:
    from tests.support.servers import s3

    command = COMMANDS[contestant]
    source, back = _values(n, nbytes), Path(folder, "back")
    back.mkdir()
    found: dict[str, Any] = {"cpu_us": 0.0, "wall_us": 0.0}
    server = _server()
    environment = _environment(server)
    bucket = server.make_bucket()
    try:
        for step in STEPS:
            remote = f"s3://{bucket}/data"
            run = command(str(source), remote) if step.startswith("up") else command(remote, str(back))
            times = timed(lambda run=run: subprocess.run(run, env=environment, check=True, stdout=sys.stderr))
            found |= {step: round(times["wall_us"] / 1e6, 2), f"{step}_cpu": round(times["cpu_us"] / 1e6, 2)}
            found["cpu_us"] += times["cpu_us"] / n
            found["wall_us"] += times["wall_us"] / n
    finally:
        if n * nbytes >= 1 << 28:  # small values go with the server: to delete them takes as long as a turn
            server.drop_bucket(bucket)
            s3.collect_garbage()
    copied = [file for file in back.rglob("*") if file.is_file() and file.stat().st_size == nbytes]
    assert len(copied) == n, f"{contestant} brought back {len(copied):,} of {n:,}"
    return found


@functools.cache
def _server() -> Any:
    """Return the server, which stops when this process ends."""
    from tests.support.servers import s3

    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(s3.session())


def _environment(server: Any) -> dict[str, str]:
    # rclone does not begin where a bundle of certificates is named; here no connection has one. Bytecode is kept, as in
    # an installation: whoever forbids that for a checkout would measure the compiler.
    left_out = ("AWS_CA_BUNDLE", "PYTHONDONTWRITEBYTECODE")
    plain = {name: value for name, value in os.environ.items() if name not in left_out}
    bytecode = {"PYTHONPYCACHEPREFIX": str(Path(os.environ["ZARRSTORE_BENCHMARKS"], "bytecode"))}
    return {**plain, **bytecode, **server.environment(), **_rclone(server), "S3_ENDPOINT_URL": server.endpoint}


def _values(n: int, nbytes: int) -> Path:
    """Return a directory of values, made once for all contestants."""
    folder = Path(os.environ["ZARRSTORE_BENCHMARKS"], f"race-{n}-{nbytes}")
    if not folder.exists():
        for old in folder.parent.glob("race-*"):
            shutil.rmtree(old)
        below = folder / "foo"
        below.mkdir(parents=True)
        for i in range(n):
            (below / f"{i}.0").write_bytes(os.urandom(nbytes))
    return folder


def _rclone(server: Any) -> dict[str, str]:
    settings = {"PROVIDER": "Ceph", "ENDPOINT": server.endpoint, "REGION": "us-east-1", "NO_CHECK_BUCKET": "true"}
    settings |= {"ACCESS_KEY_ID": server.key, "SECRET_ACCESS_KEY": server.secret}
    return {f"RCLONE_S3_{name}": value for name, value in settings.items()}


def _ours(source: str, dest: str, scheme: str = "s3") -> list[str]:
    places = [place.replace("s3://", f"{scheme}://") for place in (source, dest)]
    return [sys.executable, "-m", "zarrstore", "sync", "-q", *places]


def _ours_by_obstore(source: str, dest: str) -> list[str]:
    return _ours(source, dest, "obstore+s3")


def _aws(source: str, dest: str) -> list[str]:
    return [beside_aws("aws"), "s3", "sync", "--quiet", source, dest]


def _rclone_sync(source: str, dest: str) -> list[str]:
    program = shutil.which("rclone")
    if program is None:
        raise ImportError("rclone is not installed")
    # As its manual advises for S3: many requests at a time, and no HEAD a key for a time that it keeps there.
    options = ["--transfers", "64", "--checkers", "64", "--fast-list", "--update", "--use-server-modtime"]
    return [program, "sync", "-q", *options, *(place.replace("s3://", ":s3:") for place in (source, dest))]


def _s5cmd(source: str, dest: str) -> list[str]:
    return [beside_aws("s5cmd"), "--log", "error", "sync", f"{source}/*", f"{dest}/"]


def beside_aws(program: str) -> str:
    from tests.support import peers

    if reason := peers.lacking("aws"):
        raise ImportError(reason)
    return str(Path(peers.python("aws")).with_name(program))


COMMANDS: dict[str, Callable[[str, str], list[str]]] = {
    "zarrstore fsspec": _ours,
    "zarrstore obstore": _ours_by_obstore,
    "aws s3 sync": _aws,
    "rclone": _rclone_sync,
    "s5cmd": _s5cmd,
}
