"""A hierarchy as one archive, and back."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import pytest

from tests.support import peers
from zarrstore import DirectoryStore, open_store
from zarrstore.errors import DamagedStoreError, DestinationExistsError, StoreNotFoundError
from zarrstore.testing import FailingStore, tree
from zarrstore.tools.copy import CopyError
from zarrstore.tools.pack import pack, unpack

LEGACY = Path(__file__).parent.parent / "data" / "v2" / "legacy.zarr"


def test_a_genuine_hierarchy_goes_there_and_back(tmp_path: Path) -> None:
    n_copied, n_skipped, _ = pack(LEGACY, tmp_path / "a.zip", verify=True)
    assert (n_copied, n_skipped) == (89, 0)
    unpack(tmp_path / "a.zip", tmp_path / "back", verify=True)
    assert dict(DirectoryStore(tmp_path / "back")) == dict(DirectoryStore(LEGACY))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "back"]


def test_entries_are_in_the_order_that_a_reader_wants(tmp_path: Path) -> None:
    pack(LEGACY, tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        names = archive.namelist()
        assert archive.testzip() is None
    documents = [name for name in names if name.rsplit("/", 1)[-1] in (".zgroup", ".zattrs", ".zarray", ".zmetadata")]
    assert names[: len(documents)] == documents
    assert [name.count("/") for name in documents] == sorted(name.count("/") for name in documents)
    assert names[0] in (".zattrs", ".zgroup")


def test_other_tools_read_it(tmp_path: Path) -> None:
    peers.require_tool("unzip")
    pack(tree(), tmp_path / "a.zip")
    done = subprocess.run(["unzip", "-t", tmp_path / "a.zip"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_failure_leaves_the_old_archive_and_nothing_else(tmp_path: Path) -> None:
    pack({"a": b"old"}, tmp_path / "a.zip")
    broken = FailingStore(tree(), OSError(5, "Input/output error"), methods=["_get"], after=5)
    with pytest.raises((OSError, CopyError)):
        pack(broken, tmp_path / "a.zip", overwrite=True)
    assert dict(open_store(tmp_path / "a.zip", mode="r")) == {"a": b"old"}
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_what_is_there_is_not_replaced_unless_told(tmp_path: Path) -> None:
    pack({"a": b"1"}, tmp_path / "a.zip")
    with pytest.raises(DestinationExistsError, match="overwrite=True"):
        pack({"a": b"2"}, tmp_path / "a.zip")
    pack({"a": b"2"}, tmp_path / "a.zip", overwrite=True)
    unpack(tmp_path / "a.zip", tmp_path / "d")
    with pytest.raises(DestinationExistsError, match="if_exists"):
        unpack(tmp_path / "a.zip", tmp_path / "d")
    assert unpack(tmp_path / "a.zip", tmp_path / "d", if_exists="skip")[:2] == (0, 1)


def test_the_archive_has_the_user_s_mode(tmp_path: Path) -> None:
    pack({"a": b"1"}, tmp_path / "a.zip")
    (tmp_path / "plain").touch()
    assert (tmp_path / "a.zip").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("name", ["../../evil", "/evil", "a/../../evil", "a//evil"])
def test_an_entry_that_leads_out_is_refused_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    archive = tmp_path / "deep" / "er" / "evil.zip"
    archive.parent.mkdir(parents=True)
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("good/0", b"1")
        made.writestr(name, b"evil")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DamagedStoreError, match="evil"):
        unpack(archive, tmp_path / "deep" / "er" / "out")
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == [path for path in before if path.is_file()]


def test_no_source_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFoundError):
        pack(tmp_path / "absent", tmp_path / "a.zip")
    assert list(tmp_path.iterdir()) == []
