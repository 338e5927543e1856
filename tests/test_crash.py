"""The crash harness finds what is wrong with a store that is careless."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import crash
from zarrstore.base import Store


class InPlace(Store):
    """Writes where the old value stands, and swallows errors."""

    pause = 0.0

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "files"
        self.folder.mkdir(exist_ok=True)

    def _place(self, key: str) -> Path:
        return self.folder / key.replace("/", "%")

    def _get(self, key: str) -> bytes:
        try:
            return self._place(key).read_bytes()
        except FileNotFoundError:
            raise KeyError(key) from None

    def _set(self, key: str, value: bytes) -> None:
        descriptor = os.open(self._place(key), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            for at in range(0, len(value), 1000):
                os.write(descriptor, value[at : at + 1000])
                time.sleep(self.pause)
        except OSError:
            pass
        os.close(descriptor)

    def _delete(self, key: str) -> None:
        try:
            self._place(key).unlink()
        except FileNotFoundError:
            raise KeyError(key) from None

    def _keys(self, path: str) -> Iterator[str]:
        return (name.replace("%", "/") for name in os.listdir(self.folder))


class SlowInPlace(InPlace):
    """Most kills come in the middle of a value, however late they come."""

    pause = 0.0005


def test_kills_tear_values_that_are_written_in_place(tmp_path):
    found = crash.kills(f"{__name__}:SlowInPlace", tmp_path, rounds=20)
    assert any("torn" in line or "bytes of" in line or "error" in line for line in found["bad"])


@pytest.mark.needs_peer("strace")
def test_failed_writes_that_nobody_tells_of_are_found(tmp_path):
    found = crash.failing_calls(f"{__name__}:InPlace", tmp_path, "write", every=5)
    assert any("ENOSPC" in line and "should be one of" in line for line in found["bad"])
    assert any("KILL" in line for line in found["bad"])
    assert found["silent"] != []
