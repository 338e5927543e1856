"""zarrita in a real browser reads what ``zarrstore serve`` serves: old data, as it is and as version 3."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import zarrstore
from tests.support import browser
from tests.support.servers.serving import serving
from zarrstore import V3View, open_store

DATA = Path(__file__).parent / "data"

pytestmark = [pytest.mark.slow, pytest.mark.needs_peer("zarrita")]

TEMPERATURE = "ocean/surface/temperature"


def test_zarrita_reads_an_old_lmdb_file_and_n5_as_version_3_in_a_browser(tmp_path):
    browser.require()
    shutil.copytree(DATA / "v2/legacy.lmdb", tmp_path / "legacy.lmdb")  # a reader leaves a lock file beside it
    lmdb = open_store(tmp_path / "legacy.lmdb", mode="r")
    n5 = open_store(DATA / "old/2.11.3/data.n5", mode="r")
    plain = next(node.path for node in zarrstore.walk(n5) if node.kind == "array" and len(node.document["shape"]) == 2)
    with serving(lmdb) as old, serving(V3View(lmdb)) as new, serving(V3View(n5)) as tree:
        found = browser.read_by_zarrita(
            {
                "legacy.lmdb as it is": {"url": old, "path": TEMPERATURE, "version": 2},
                "legacy.lmdb as version 3": {"url": new, "path": TEMPERATURE, "version": 3},
                "N5 as version 3": {"url": tree, "path": plain, "version": 3},
            },
            tmp_path,
        )
    temperature, of_n5 = zarrstore.read_array(lmdb, TEMPERATURE), zarrstore.read_array(n5, plain)
    for name, expected in zip(found, (temperature, temperature, of_n5), strict=True):
        assert found[name].get("error") is None, found[name]
        assert tuple(found[name]["shape"]) == expected.shape
        assert np.array_equal(np.array(found[name]["data"]).reshape(expected.shape), expected)
