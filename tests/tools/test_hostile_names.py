"""Names beside chunks that look like coordinates and are none."""

from __future__ import annotations

from tests.support.cases import each_of
from zarrstore import migrate_2to3, migrate_to_shards, repair, respell, tree, verify
from zarrstore.chunknames import chunk_coords
from zarrstore.errors import ZarrStoreError
from zarrstore.metadata import v2


@each_of("separator", [".", "/"])
def test_a_name_of_thousands_of_digits_is_no_chunk(separator):
    meta = v2.build_array(shape=(6, 6), chunks=(1, 1), dtype="<i4", compressor=None, dimension_separator=separator)
    store = {"a/.zarray": v2.encode_array(meta), f"a/0{separator}0": bytes(4)}
    store |= {f"a/{name}{separator}0": b"1234" for name in ("9" * 5000, "0" * 5000, "9" * 700)}
    assert "foreign" in str(verify(store))
    for verb in (
        tree,
        lambda store: migrate_2to3(store, {}),
        lambda store: migrate_to_shards(store, {}),
        lambda store: repair(dict(store)),
        lambda store: respell(dict(store), "/"),
    ):
        try:
            verb(store)
        except ZarrStoreError:
            pass
    assert chunk_coords(f"a/{'9' * 5000}", "a") is None
