"""1,000 chunks of 1 KiB from a directory to a real S3 server on this machine, beside zarr 2 and ``aws s3 sync``.

Its wall time counts: the server works on the same processors.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import subprocess
import uuid
from pathlib import Path
from typing import Any

from benchmarks.scenarios import race_s3
from benchmarks.timing import Case, timed

TITLE = "Copies to S3"
_ALL = ("zarrstore", "zarrstore obstore", "zarr 2", "aws s3 sync")

_left = contextlib.ExitStack()
atexit.register(_left.close)


def cases(quick: bool) -> list[Case]:
    if quick:
        return []
    return [Case("directory to S3, 1,000 x 1 KiB", _ALL, {"n": 1000}, rounds=2)]


@functools.cache
def _server() -> Any:
    """Return the server, which this process uses until it ends: it takes 12 seconds to start."""
    from tests.support.servers import s3

    return _left.enter_context(s3.session())


def measure(contestant: str, folder: str, n: int) -> dict[str, Any]:
    source = Path(folder, "source")
    (source / "foo").mkdir(parents=True)
    for i in range(n):
        (source / "foo" / f"{i}.0").write_bytes(os.urandom(1024))
    server = _server()
    bucket = f"bench-{uuid.uuid4().hex}"
    if contestant == "aws s3 sync":
        return _by_aws(server, bucket, str(source), n)
    options = server.storage_options()
    url = f"s3://{bucket}/data"
    if contestant == "zarrstore obstore":
        return _by_obstore(server, str(source), n)
    import s3fs

    system = s3fs.S3FileSystem(**options)
    system.mkdir(bucket)
    if contestant == "zarr 2":
        import zarr

        return timed(lambda: zarr.copy_store(zarr.DirectoryStore(str(source)), system.get_mapper(url)), n)
    import zarrstore

    with zarrstore.open_store(url, storage_options=options) as dest:
        return timed(lambda: zarrstore.copy_store(zarrstore.DirectoryStore(source), dest), n)


def _by_aws(server: Any, bucket: str, source: str, n: int) -> dict[str, Any]:
    environment = {**os.environ, **server.environment()}
    aws = race_s3.beside_aws("aws")
    subprocess.run([aws, "s3", "mb", f"s3://{bucket}"], env=environment, check=True, capture_output=True)
    command = [aws, "s3", "sync", "--quiet", source, f"s3://{bucket}/data"]
    return timed(lambda: subprocess.run(command, env=environment, check=True), n)


def _by_obstore(server: Any, source: str, n: int) -> dict[str, Any]:
    import obstore.store

    import zarrstore

    bucket = server.make_bucket()
    environment = {name.lower(): value for name, value in server.environment().items() if name.startswith("AWS_")}
    names = ("aws_endpoint_url", "aws_access_key_id", "aws_secret_access_key", "aws_default_region")
    config = {name: environment[name] for name in names}
    inner = obstore.store.S3Store(
        bucket, prefix="data", config=config, client_options={"allow_http": True}, virtual_hosted_style_request=False
    )
    with zarrstore.ObstoreStore(inner) as dest:
        return timed(lambda: zarrstore.copy_store(zarrstore.DirectoryStore(source), dest), n)
