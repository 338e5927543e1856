"""Every verb over every store of every old release: zarr 2.18.7, 3.1 and 3.4 read what the writer read back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.support import peers
from tests.support.cases import each_of
from tests.support.servers.s3 import S3Server
from tests.tools import old
from zarrstore import (
    DirectoryStore,
    LMDBStore,
    NestedDirectoryStore,
    UnsupportedOperation,
    ZipStore,
    copy_store,
    migrate_2to3,
    open_store,
    pack,
    tree,
    verify,
)
from zarrstore.tools.info import describe_node

SOURCES = (*old.STORES, *old.N5)
Target = tuple[str, str, str]


class Results(NamedTuple):
    """What the verbs left, by the version in which it is to be read: (release, kind, path)."""

    version_2: list[Target]
    version_3: list[Target]
    environment: dict[str, str]


def _note(targets: list[Target], release: str, n5: str, kind: str, path: object) -> None:
    targets.append((release, n5 + kind, str(path)))


@pytest.fixture(scope="module")
def results(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Results]:
    """Run every verb over every store."""
    options = s3_server.storage_options()
    environment = s3_server.environment() | {"ZARRSTORE_S3_OPTIONS": json.dumps(options)}
    bucket = s3_server.make_bucket()
    done = Results([], [], environment)
    for release, name in SOURCES:
        n5 = "n5-" if name.endswith(".n5") else ""
        folder = tmp_path_factory.mktemp(f"{release}-{name}")
        place = f"{bucket}/{release}-{name}".replace(".", "-")
        source = old.copied(release, name, folder)
        version_2, version_3 = (partial(_note, targets, release, n5) for targets in done[:2])
        with old.opened(source) as store:
            pack(store, folder / "packed.zip", verify=True)
            version_2("zip", folder / "packed.zip")
            with ZipStore(folder / "copied.zip", mode="w") as dest:
                copy_store(store, dest, verify=True)
            version_2("zip", folder / "copied.zip")
            with LMDBStore(folder / "copied.lmdb") as dest:
                copy_store(store, dest, verify=True)
            version_2("lmdb", folder / "copied.lmdb")
            with open_store(f"s3://{place}", storage_options=options) as dest:
                copy_store(store, dest, verify=True)
            version_2("s3", place)
            for kind, to in (("dir", folder / "migrated.zarr"), ("s3", f"s3://{place}-migrated")):
                with open_store(to, storage_options=options if kind == "s3" else None) as dest:
                    assert set(migrate_2to3(store, dest).counts()) == {"migrated"}
                version_3(kind, str(to).removeprefix("s3://"))
            if n5:
                with pytest.raises(UnsupportedOperation, match="pass dest"):
                    migrate_2to3(store)
            elif store.capabilities.writable:
                assert set(migrate_2to3(store).counts()) == {"migrated"}
                version_3("dir", source)
                version_2("nested" if isinstance(store, NestedDirectoryStore) else "dir", source)
        # In place on the server, too: the copy of version 2 is one of version 3 as well from here on.
        with open_store(f"s3://{place}", storage_options=options) as dest:
            assert set(migrate_2to3(dest).counts()) == {"migrated"}
        version_3("s3", place)
    yield done
    s3_server.drop_bucket(bucket)


def differences(peer: str, targets: list[Target], results: Results) -> list[str]:
    found: list[str] = peers.run(peer, Path(old.__file__), json.dumps(targets), env=results.environment)
    return found


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("peer", ["zarr2", "self", "z34"])
def test_what_every_verb_leaves_is_read_as_the_writer_read_it(peer: str, results: Results) -> None:
    # Where both versions stand, zarr 3 takes version 3 unless it is told otherwise: version 2 is judged by zarr 2.
    both = {path for _, _, path in results.version_3}
    if peer == "zarr2":
        targets = results.version_2
    else:
        targets = [*results.version_3, *(target for target in results.version_2 if target[2] not in both)]
    assert len(targets) >= 20
    assert differences(peer, targets, results) == []


@each_of(("release", "name"), SOURCES)
def test_info_tree_and_verify_say_of_every_store_what_its_writer_wrote(release: str, name: str) -> None:
    expected = old.expected(release, name.endswith(".n5"))
    with old.opened(old.DATA / release / name) as store:
        for path, values in expected.items():
            facts = describe_node(store, path)
            assert (facts["kind"], facts["zarr_format"]) == ("array", 2)
            assert tuple(facts["metadata"]["shape"]) == values.shape
            assert np.dtype(facts["metadata"]["dtype"]).newbyteorder("=") == values.dtype.newbyteorder("=")
            assert facts["chunks_initialized"] <= facts["chunks_expected"]
            assert (facts["chunks_initialized"] == 0) == (path == "never")
        drawn = str(tree(store))
        for path, values in expected.items():
            shape = ", ".join(map(str, values.shape))
            assert f"{path.rpartition('/')[2]} ({shape})" in drawn
        report = verify(store)
        assert (report.problems, report.fully_checked) == ((), True)
        assert report.n_arrays == len(expected)
        assert report.n_decoded == report.n_chunks


def _counts(release: str, name: str) -> Any:
    with old.opened(old.DATA / release / name) as store:
        return {path: describe_node(store, path)["chunks_initialized"] for path in old.expected(release)}


@pytest.mark.parametrize("release", old.RELEASES)
def test_info_counts_the_same_chunks_in_every_store_of_a_release(release: str) -> None:
    counts = [_counts(release, name) for at, name in old.STORES if at == release]
    assert counts == [counts[0]] * len(counts)


def test_the_readers_see_a_copy_that_lost_its_chunks(tmp_path: Path) -> None:
    with old.opened(old.DATA / "2.4.0" / "nested.zarr") as store:
        copy_store(store, DirectoryStore(tmp_path / "d"), excludes=r"grid/[0-9]")
    target = ("2.4.0", "dir", str(tmp_path / "d"))
    assert peers.run("self", Path(old.__file__), json.dumps([target])) == [f"dir {tmp_path / 'd'} grid"]
