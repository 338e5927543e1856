"""1,000 chunks of 1 KB from a directory to a real S3 server: ours, zarr 2.18.7's copy_store, and `aws s3 sync`.

::

    python benchmarks/bench_copy_s3.py [ROUNDS]

Runs under the interpreter of the peer ``zarr2``, and brings the server up if it is down. Wall time, since the server
works on the same processors; rounds interleaved, the fastest counts.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

from tests.support import peers  # noqa: E402
from tests.support.servers import s3  # noqa: E402

if __name__ == "__main__" and "--inside" not in sys.argv:
    os.execv(peers.python("zarr2"), [peers.python("zarr2"), __file__, "--inside", *sys.argv[1:]])

CHUNKS = 1000


def main(rounds: int = 1) -> None:
    import s3fs
    import zarr

    import zarrstore

    warnings.simplefilter("ignore")
    aws = Path(peers.python("aws")).with_name("aws")
    with s3.session() as server, tempfile.TemporaryDirectory() as folder:
        options = server.storage_options()
        system = s3fs.S3FileSystem(**options)
        source = zarrstore.DirectoryStore(f"{folder}/source")
        source.update({f"foo/{i}.0": os.urandom(1024) for i in range(CHUNKS)})
        environment = {**os.environ, **server.environment()}

        def ours(url: str) -> None:
            zarrstore.copy_store(source, zarrstore.open_store(url, storage_options=options))

        def theirs(url: str) -> None:
            zarr.copy_store(zarr.DirectoryStore(source.path), system.get_mapper(url))

        def sync(url: str) -> None:
            subprocess.run([str(aws), "s3", "sync", "--quiet", source.path, url], env=environment, check=True)

        runs: dict[str, Callable[[str], None]] = {"ours": ours, "zarr2": theirs, "aws s3 sync": sync}
        best: dict[str, float] = {}
        for _ in range(rounds):
            for who, run in runs.items():
                bucket = f"bench-{uuid.uuid4().hex}"
                system.mkdir(bucket)
                start = time.perf_counter()
                run(f"s3://{bucket}/data")
                best[who] = min(best.get(who, 1e9), time.perf_counter() - start)
                assert len(system.find(bucket)) == CHUNKS
                system.rm(bucket, recursive=True)
    for who, took in best.items():
        print(f"{who:12} {took:6.2f} s   {took / best['ours']:5.1f} times ours")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:] if argument != "--inside"))
