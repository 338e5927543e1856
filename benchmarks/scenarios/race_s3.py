"""To a real S3 server on this machine and back, each time new and again unchanged, beside aws, rclone and s5cmd.

All of them are commands, start-up included. Each turn is a bucket of its own: `up` from a directory, `up_again` with
nothing changed, `down` to a directory, `down_again`; wall seconds, and processor seconds of the command (`_cpu`). The
server works on the same processors. ``python tests/support/peers.py install aws rclone s3`` brings the others.
"""

from __future__ import annotations

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
#: Number and bytes of the values; `race_s3_full` has ten times as many.
SIZES = ((1000, 1 << 10), (20, 16 << 20))


def cases(quick: bool, sizes: tuple[tuple[int, int], ...] = SIZES) -> list[Case]:
    if quick:
        return []
    return [
        Case(f"{n:,} x {nbytes >> 10:,} KiB", CONTESTANTS, {"n": n, "nbytes": nbytes}, rounds=3) for n, nbytes in sizes
    ]


def measure(contestant: str, folder: str, n: int, nbytes: int) -> dict[str, Any]:
    from tests.support.servers import s3

    command = COMMANDS[contestant]
    source, back = _values(n, nbytes), Path(folder, "back")
    back.mkdir()
    found: dict[str, Any] = {"cpu_us": 0.0, "wall_us": 0.0}
    with s3.session() as server:
        # rclone does not begin where a bundle of certificates is named; here no connection has one.
        plain = {name: value for name, value in os.environ.items() if name != "AWS_CA_BUNDLE"}
        environment = {**plain, **server.environment(), **_rclone(server), "S3_ENDPOINT_URL": server.endpoint}
        bucket = server.make_bucket()
        try:
            for step in ("up", "up_again", "down", "down_again"):
                remote = f"s3://{bucket}/data"
                run = command(str(source), remote) if step.startswith("up") else command(remote, str(back))
                times = timed(lambda run=run: subprocess.run(run, env=environment, check=True, stdout=sys.stderr))
                found |= {step: round(times["wall_us"] / 1e6, 2), f"{step}_cpu": round(times["cpu_us"] / 1e6, 2)}
                found["cpu_us"] += times["cpu_us"] / n
                found["wall_us"] += times["wall_us"] / n
        finally:
            server.drop_bucket(bucket)
    copied = [file for file in back.rglob("*") if file.is_file() and file.stat().st_size == nbytes]
    assert len(copied) == n, f"{contestant} brought back {len(copied):,} of {n:,}"
    return found


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
