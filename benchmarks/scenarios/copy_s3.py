"""1,000 chunks of 1 KiB from a directory to a real S3 server on this machine, beside zarr 2 and ``aws s3 sync``.

Its wall time counts: the server works on the same processors.
"""

from __future__ import annotations

import os
import subprocess
import uuid
from pathlib import Path
from typing import Any

from benchmarks.timing import Case, timed

TITLE = "Copies to S3"


def cases(quick: bool) -> list[Case]:
    if quick:
        return []
    return [Case("directory to S3, 1,000 x 1 KiB", ("zarrstore", "zarr 2", "aws"), {"n": 1000}, rounds=2)]


def measure(contestant: str, folder: str, n: int) -> dict[str, Any]:
    from tests.support.servers import s3

    source = Path(folder, "source", "foo")
    source.mkdir(parents=True)
    for i in range(n):
        (source / f"{i}.0").write_bytes(os.urandom(1024))
    with s3.session() as server:
        bucket = f"bench-{uuid.uuid4().hex}"
        options = server.storage_options()
        environment = {**os.environ, **server.environment()}
        if contestant == "aws":
            import sys

            aws = str(Path(sys.executable).with_name("aws"))
            subprocess.run([aws, "s3", "mb", f"s3://{bucket}"], env=environment, check=True, capture_output=True)
            command = [aws, "s3", "sync", "--quiet", str(source.parent), f"s3://{bucket}/data"]
            return timed(lambda: subprocess.run(command, env=environment, check=True), n)
        import s3fs

        system = s3fs.S3FileSystem(**options)
        system.mkdir(bucket)
        url = f"s3://{bucket}/data"
        if contestant == "zarr 2":
            import zarr

            return timed(lambda: zarr.copy_store(zarr.DirectoryStore(str(source.parent)), system.get_mapper(url)), n)
        import zarrstore

        dest = zarrstore.open_store(url, storage_options=options)
        return timed(lambda: zarrstore.copy_store(zarrstore.DirectoryStore(str(source.parent)), dest), n)
