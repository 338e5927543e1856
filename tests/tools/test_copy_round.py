"""The genuine hierarchy round through every kind of store, a real S3 server among them."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.servers import s3
from zarrstore import copy_store, diff, open_store, verify
from zarrstore.cli.group import run

V2 = Path(__file__).parent.parent / "data" / "v2"
DIGESTS = json.loads((V2 / "manifest.json").read_text())["keys"]


def digests(store: Any) -> dict[str, str]:
    return {key: hashlib.sha256(value).hexdigest() for key, value in store.items()}


def test_round_through_six_kinds_of_store_all_89_keys_are_the_same(
    s3_server: s3.S3Server, s3_bucket: str, tmp_path: Path
) -> None:
    pytest.importorskip("s3fs", reason="needs s3fs: pip install zarrstore[s3]")
    options = s3_server.storage_options()
    stations = [
        (str(V2 / "legacy.zarr"), None),
        (str(tmp_path / "a.zip"), None),
        (str(tmp_path / "b.lmdb"), None),
        (str(tmp_path / "c.sqlite"), None),
        (f"s3://{s3_bucket}/legacy.zarr", options),
        (str(tmp_path / "d"), None),
    ]
    for (start, start_options), (end, end_options) in itertools.pairwise(stations):
        with (
            open_store(start, mode="r", storage_options=start_options) as source,
            open_store(end, mode="w-", storage_options=end_options) as dest,
        ):
            assert copy_store(source, dest, verify=True)[:2] == (89, 0)
            assert list(diff(source, dest)) == []
            assert digests(dest) == DIGESTS
            assert verify(dest)


def test_the_command_line_copies_from_s3_into_an_archive(
    s3_server: s3.S3Server, s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("s3fs", reason="needs s3fs: pip install zarrstore[s3]")
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    url = f"s3://{s3_bucket}/legacy.zarr"
    assert run(["copy", str(V2 / "legacy.zarr"), url]) == 0
    assert run(["copy", url, str(tmp_path / "data.zip"), "--verify"]) == 0
    assert run(["diff", str(V2 / "legacy.zarr"), str(tmp_path / "data.zip")]) == 0
    assert run(["rm", url, "/", "--yes"]) == 0
    assert run(["ls", url]) in (0, 3)
