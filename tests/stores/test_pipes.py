"""A pipe in the place of a file: to open one waits for a writer, so no store does."""

from __future__ import annotations

import os

import pytest

from tests.support.mutants import patience
from zarrstore import DirectoryStore, ZipStore, open_store
from zarrstore.errors import ZarrStoreError
from zarrstore.stores.dbm import DBMStore

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")


@pytest.mark.parametrize(
    "opened",
    [
        open_store,
        lambda path: open_store(path, mode="r"),
        lambda path: ZipStore(path, mode="r"),
        lambda path: ZipStore(path, mode="a"),
        lambda path: ZipStore(path, mode="w"),
        lambda path: ZipStore.recover(path),
        lambda path: DBMStore(path, flag="r"),
        lambda path: DBMStore(path),
        lambda path: DirectoryStore(path)["x"],
    ],
)
def test_a_pipe_is_refused_and_not_waited_for(tmp_path, opened):
    os.mkfifo(tmp_path / "a")
    with patience(5), pytest.raises((ZarrStoreError, OSError, KeyError)):
        opened(str(tmp_path / "a"))
