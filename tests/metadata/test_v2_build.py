"""Documents are byte for byte what zarr 2.18.7 writes."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numcodecs
import numpy as np

from tests.support.cases import each_of
from zarrstore.metadata import v2

DATA = Path(__file__).parents[1] / "data"
TABLE = json.loads((DATA / "zarr2_documents.json").read_text())["documents"]


def build(call: str) -> v2.ArrayMeta:
    parameters = eval(f"dict({call})", {"np": np, "numcodecs": numcodecs})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return v2.build_array(**parameters)


@each_of("row", TABLE, ids=[row["call"] for row in TABLE])
def test_the_document_is_the_one_zarr_2_writes(row):
    assert v2.encode_array(build(row["call"])).decode() == row["zarray"]
