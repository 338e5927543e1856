"""A hundred thousand chunks of 4 KiB into shards: none decoded, killed half way and taken up, equal to four readers."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numcodecs
import pytest

from benchmarks.runner import run as benchmark
from benchmarks.scenarios.shards import write_source
from tests.support import peers
from tests.tools.test_shard import READERS
from zarrstore import DirectoryStore
from zarrstore.tools import shard

N_CHUNKS = 100_000
SHARDS = (320, 3200)

_DIGEST = """
import hashlib, json, sys, zarr
values = zarr.open_array(sys.argv[1], mode="r", zarr_format=int(sys.argv[2]))[...]
print(json.dumps([hashlib.sha256(values).hexdigest(), list(values.shape)]))
"""


@pytest.mark.nightly
@pytest.mark.alone
@pytest.mark.timeout(1800)
@pytest.mark.needs_peer("z34")
def test_a_hundred_thousand_chunks_are_packed_undecoded_and_read_by_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_source(str(tmp_path / "s" / "a"), N_CHUNKS)
    expected, shape = peers.run("self", _DIGEST, tmp_path / "s" / "a", 2, timeout=600)
    dest = DirectoryStore(tmp_path / "d")
    command = [sys.executable, "-m", "zarrstore", "migrate", tmp_path / "s", "--dest", tmp_path / "d"]
    command += ["--shards", "x".join(map(str, SHARDS)), "--resume", tmp_path / "journal"]
    child = subprocess.Popen([*map(str, command)], cwd=peers.CHECKOUT, stderr=subprocess.DEVNULL)
    while child.poll() is None and len(dest) < N_CHUNKS // 2000:
        time.sleep(0.05)
    child.kill()
    child.wait()
    half = {key: os.stat(tmp_path / "d" / key).st_mtime_ns for key in dest}
    assert N_CHUNKS // 2000 <= len(half) < N_CHUNKS // 1000
    assert "a/zarr.json" not in dest

    def refuse(self: object, *args: object, **options: object) -> None:
        raise AssertionError("a chunk was decoded or encoded")

    monkeypatch.setattr(numcodecs.Blosc, "decode", refuse)
    monkeypatch.setattr(numcodecs.Blosc, "encode", refuse)
    written: list[str] = []
    shard.migrate_to_shards(
        DirectoryStore(tmp_path / "s"), dest, shards=SHARDS, resume=tmp_path / "journal", on_shard=written.append
    )
    monkeypatch.undo()
    recorded = [key for key, changed in half.items() if os.stat(tmp_path / "d" / key).st_mtime_ns == changed]
    assert len(written) + len(recorded) == N_CHUNKS // 1000  # the journal speaks of 64 shards at a time
    assert not (tmp_path / "journal").exists()

    digests = {name: hashlib.sha256(read(tmp_path / "d", "a")).hexdigest() for name, read in READERS.items()}
    digests["zarr 3.4"], shape_34 = peers.run("z34", _DIGEST, tmp_path / "d" / "a", 3, timeout=600)
    assert digests == dict.fromkeys(["zarr", "tensorstore", "zarrs", "zarr 3.4"], expected)
    assert shape == shape_34 == [N_CHUNKS // 100 * 32, 3200]
    assert json.loads(dest["a/zarr.json"])["codecs"][0]["name"] == "sharding_indexed"


@pytest.mark.nightly
@pytest.mark.alone
@pytest.mark.timeout(1800)
@pytest.mark.needs_peer("z34")
def test_packing_takes_a_tenth_of_the_processor_time_of_zarr_3_4() -> None:
    ((_, _, found),) = benchmark(["shards"], quick=False)
    assert found["zarr 3"]["cpu_us"] > 10 * found["zarrstore"]["cpu_us"], found
