"""What zarr 2.18.7 wrote, described in version 3 with its chunks untouched, and read by others than us."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

from tests.support import peers
from zarrstore.metadata import consolidated, documents, v2, v3

MATRIX = Path(__file__).with_name("matrix.py")
DATA = Path(__file__).parents[1] / "data" / "v2"

#: What version 3 cannot say, and the word of the reason that names it.
NOT_REPRESENTABLE = {
    "dtype-big-c16": "zarrs",
    "dtype-big-c16-F": "zarrs",
    "dtype-big-c16-null": "zarrs",
    "filter-base64": "base64",
    "filter-base64-F": "base64",
    "filter-categorize": "categorize",
    "filter-categorize-F": "categorize",
    "filter-delta-reinterprets": "reinterpret",
    "filter-delta-reinterprets-F": "reinterpret",
    "filter-quantize-astype": "quantize",
    "filter-quantize-astype-F": "quantize",
    "filter-shuffle-delta": "delta",
    "filter-shuffle-delta-F": "delta",
    "object-array": "vlen-array",
    "object-json": "json2",
    "object-msgpack": "msgpack2",
    "struct-big": "big-endian",
    "struct-subarray": "subarray",
}


def translate(root: Path) -> dict[str, v3.Translation]:
    """Write zarr.json beside every .zarray and .zgroup below `root` and remove those; return the arrays by path."""
    nodes: dict[str, dict] = {}
    translations: dict[str, v3.Translation] = {}
    for directory, _, files in os.walk(root):
        folder = Path(directory)
        path = folder.relative_to(root).as_posix()
        attrs = v2.decode_attrs((folder / ".zattrs").read_bytes()) if ".zattrs" in files else {}
        if ".zarray" in files:
            translations[path] = v3.array_v2_to_v3(
                v2.decode_array((folder / ".zarray").read_bytes(), f"{path}/.zarray"), attrs
            )
            if translations[path].document is not None:
                nodes[path] = translations[path].document
        elif ".zgroup" in files:
            nodes[path] = v3.group_v2_to_v3(attrs).document
        for name in {".zarray", ".zgroup", ".zattrs", ".zmetadata"} & set(files):
            (folder / name).unlink()
    top = nodes.pop(".")
    for path, document in nodes.items():
        (root / path / "zarr.json").write_bytes(documents.dumps(document))
    top["consolidated_metadata"] = consolidated.build_inline(nodes)
    (root / "zarr.json").write_bytes(documents.dumps(top))
    return translations


def digests(root: Path) -> dict[str, str]:
    """Return the SHA-256 of every chunk."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file() and not path.name.startswith(".z") and path.name != "zarr.json"
    }


@pytest.fixture(scope="module")
def matrix(tmp_path_factory):
    """Yield the folder with v2.zarr, v3.zarr and expected.pickle, and the translations by name."""
    folder = tmp_path_factory.mktemp("matrix")
    names = peers.run("zarr2", MATRIX, "write", folder)
    shutil.copytree(folder / "v2.zarr", folder / "v3.zarr")
    translations = translate(folder / "v3.zarr")
    assert sorted(translations) == names
    return folder, translations


def test_what_version_3_cannot_say_has_its_reason_and_all_else_a_document(matrix):
    _, translations = matrix
    impossible = {name: done.problems for name, done in translations.items() if done.document is None}
    assert impossible.keys() == NOT_REPRESENTABLE.keys() & translations.keys()
    assert [name for name, reasons in impossible.items() if NOT_REPRESENTABLE[name] not in reasons[0]] == []
    assert len(translations) - len(impossible) > 150


def test_the_chunks_are_untouched(matrix):
    folder, _ = matrix
    assert digests(folder / "v3.zarr") == digests(folder / "v2.zarr")


def test_zarr_3_1_reads_every_array_that_has_a_document(matrix):
    folder, _ = matrix
    pytest.importorskip("zarr", minversion="3", reason="needs zarr 3: pip install zarrstore[zarr3]")
    assert peers.run("self", MATRIX, "read", folder) == {}


def test_zarr_3_4_reads_every_array_that_has_a_document(matrix):
    folder, _ = matrix
    assert peers.run("z34", MATRIX, "read", folder) == {}


def test_version_2_comes_back_but_for_what_version_3_has_no_words_for(matrix):
    folder, translations = matrix
    different = set()
    for name, done in translations.items():
        if done.document is None:
            continue
        meta = v2.decode_array((folder / "v2.zarr" / name / ".zarray").read_bytes())
        back = v3.array_v3_to_v2(json.loads(documents.dumps(done.document)))
        assert back.problems == []
        different |= {
            (member, name)
            for member, value in meta.document().items()
            if back.document.get(member) != value and (member, value) != ("fill_value", None)
        }
    # The automatic shuffle is resolved; objects' 0 is ""; one item has no order; a last filter that compresses is the
    # compressor, and a checksum in the compressor's place becomes a filter, which encodes to the same bytes.
    assert {name for member, name in different if member == "fill_value"} == {
        "object-utf8",
        "object-utf8-F",
        "object-utf8-zlib",
    }
    assert {name for member, name in different if member != "fill_value"} == {
        "compressor-blosc-auto",
        "compressor-blosc-auto-u1-F",
        "compressor-crc32",
        "compressor-crc32-u1-F",
        "filter-blosc-F",
        "filter-shuffle-zlib-F",
        "filter-zlib-F",
        "no-axes-F",
    }


@pytest.fixture(scope="module")
def legacy(tmp_path_factory):
    """Yield a translated copy of the hierarchy that zarr 2.18.7 wrote, the translations and the manifest."""
    root = tmp_path_factory.mktemp("legacy") / "v3.zarr"
    shutil.copytree(DATA / "legacy.zarr", root)
    translations = translate(root)
    assert digests(root) == digests(DATA / "legacy.zarr")
    return root, translations, json.loads((DATA / "manifest.json").read_text())["arrays"]


READ_LEGACY = """
    import json, sys, warnings
    warnings.simplefilter("ignore")
    from pathlib import Path
    import numpy as np, zarr
    from tests.metadata.matrix import same
    root, data, names = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
    arrays = json.loads((data / "manifest.json").read_text())["arrays"]
    def expected(entry):
        return np.load(data / "expected" / entry["file"]) if entry["file"] else np.array(entry["values"], dtype=object)
    group = zarr.open_group(root, mode="r", zarr_format=3)
    repeated = group.metadata.consolidated_metadata is not None
    differ = [name for name in names if not same(np.asarray(group[name][...]), expected(arrays[name]))]
    dimensions = group["ocean/surface/temperature"].metadata.dimension_names
    print(json.dumps([repeated, differ, dimensions, dict(group["ocean/surface"].attrs)]))
"""


@pytest.mark.parametrize("peer", ["self", "z34"])
def test_zarr_3_reads_the_other_17_through_consolidated_metadata(legacy, peer):
    root, translations, _ = legacy
    names = [name for name, done in translations.items() if done.document is not None]
    assert len(names) == 17
    found = peers.run(peer, READ_LEGACY, root, DATA, *names)
    assert found == [True, [], ["time", "lat", "lon"], {"units": "K"}]


def test_one_of_the_18_legacy_arrays_cannot_be_said(legacy):
    _, translations, arrays = legacy
    assert translations.keys() == arrays.keys()
    impossible = {name: done.problems for name, done in translations.items() if done.document is None}
    assert impossible == {"stations/meta": ["objects encoded by 'msgpack2': version 3 knows strings and bytes only"]}


#: What tensorstore 0.1.86 and zarrs 0.2.3 know nothing of: a codec of numcodecs or a data type.
NOT_TENSORSTORE = {
    "ocean/deep/counts_delta",
    "ocean/deep/packed",
    "ocean/surface/flags",
    "ocean/surface/time",
    "stations/code",
    "stations/label",
    "stations/name",
    "stations/position",
}
NOT_ZARRS = NOT_TENSORSTORE - {"ocean/deep/packed", "ocean/surface/flags"}


def expected_of(entry):
    return np.load(DATA / "expected" / entry["file"])


def test_tensorstore_reads_what_it_knows(legacy):
    tensorstore = pytest.importorskip("tensorstore", reason="needs tensorstore: pip install zarrstore[test]")
    root, translations, arrays = legacy
    read = set()
    for name, done in translations.items():
        if done.document is None:
            continue
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(root / name)}}
        try:
            opened = tensorstore.open(spec).result()
        except ValueError:
            continue
        np.testing.assert_array_equal(opened.read().result(), expected_of(arrays[name]))
        read.add(name)
    assert read >= translations.keys() - NOT_TENSORSTORE - {"stations/meta"}


def test_zarrs_reads_what_it_knows(legacy):
    pytest.importorskip("zarrs", reason="needs zarrs: pip install zarrstore[test]")
    zarr = pytest.importorskip("zarr", minversion="3", reason="needs zarr 3: pip install zarrstore[zarr3]")
    root, translations, arrays = legacy
    read = set()
    strict = {"codec_pipeline.path": "zarrs.ZarrsCodecPipeline", "codec_pipeline.strict": True}
    with zarr.config.set(strict), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        group = zarr.open_group(str(root), mode="r", zarr_format=3)
        for name, done in translations.items():
            if done.document is None:
                continue
            try:
                array = group[name]
                found = array[...]
            except Exception as exc:
                if "Unsupported" not in repr(exc):
                    raise
                continue
            np.testing.assert_array_equal(found, expected_of(arrays[name]))
            read.add(name)
    assert read >= translations.keys() - NOT_ZARRS - {"stations/meta"}
