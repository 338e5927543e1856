"""Every verb on real data: what goes to stdout, what it exits with, and what it never does."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from zarrstore import DirectoryStore, dandi_checksum, open_store
from zarrstore.cli.group import VERBS, run

DATA = Path(__file__).parent.parent / "data"


class Result(NamedTuple):
    code: int
    out: str
    err: str


Cli = Callable[..., Result]


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run a verb in a folder that holds copies of the genuine data."""
    for name in ("legacy.zarr", "legacy.zip", "legacy.lmdb"):
        source = DATA / "v2" / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    shutil.copytree(DATA / "v1" / "i4_attrs", tmp_path / "v1")
    monkeypatch.chdir(tmp_path)

    def call(*args: str) -> Result:
        capfd.readouterr()
        code = run(list(args))
        return Result(code, *capfd.readouterr())

    return call


def test_every_verb_explains_itself(cli: Cli) -> None:
    assert "Commands:" in cli("--help").out
    for verb in VERBS:
        result = cli(verb, "--help")
        assert result.code == 0
        assert result.out.startswith(f"Usage: zarrstore {verb}")


def test_ls(cli: Cli) -> None:
    assert cli("ls", "legacy.zarr", "ocean").out.split() == [".zgroup", "deep/", "surface/"]
    listed = json.loads(cli("ls", "legacy.zip", "scalar", "--json").out)["entries"]
    assert [(item["name"], item["kind"]) for item in listed] == [(".zarray", "key"), ("0", "key")]
    assert len(cli("ls", "-r", "legacy.lmdb").out.splitlines()) == 89
    assert "bytes" in cli("ls", "-l", "legacy.zip").out


def test_a_name_cannot_move_the_cursor_of_the_terminal(cli: Cli, tmp_path: Path) -> None:
    DirectoryStore(tmp_path / "odd")["a\x1b[2Jb\n"] = b"1"
    assert cli("ls", "odd").out == "a\\x1b[2Jb\\n\n"


def test_tree(cli: Cli) -> None:
    drawn = cli("tree", "legacy.zarr", "ocean").out
    assert drawn.splitlines()[:2] == ["ocean", "├── deep"]
    assert "temperature (24, 18, 30) <f4 in chunks of (6, 9, 16)" in drawn
    assert json.loads(cli("tree", "legacy.zip", "--json").out)["children"]
    assert cli("tree", "legacy.zip", "-L", "0").out == "/\n"


def test_info(cli: Cli) -> None:
    report = json.loads(cli("info", "legacy.zip", "--json").out)
    assert report["store"]["store"] == "ZipStore"
    assert report["store"]["entries"] == 89
    assert report["node"]["kind"] == "group"
    report = json.loads(cli("info", "legacy.zarr", "sparse", "--json").out)["node"]
    assert (report["chunks_initialized"], report["metadata"]["shape"]) == (1, [50, 50])
    assert "chunks_expected" in cli("info", "legacy.lmdb", "sparse").out


def test_cat(cli: Cli, tmp_path: Path) -> None:
    whole = (tmp_path / "legacy.zarr/scalar/.zarray").read_bytes()
    assert cli("cat", "legacy.zip", "scalar/.zarray").out.encode() == whole
    assert json.loads(cli("cat", "--json", "legacy.zip", "scalar/.zarray").out) == json.loads(whole)
    assert cli("cat", "legacy.zip", "absent").code == 3
    assert cli("cat", "legacy.zip", "../x").code == 3


def test_du(cli: Cli) -> None:
    report = json.loads(cli("du", "legacy.zarr", "--json").out)["entries"]
    total = sum(len(value) for value in open_store("legacy.zarr", mode="r").values())
    assert report[0] == {"path": "", "nbytes": total, "nkeys": 89}
    assert f"{total:,}" in cli("du", "legacy.zarr").out


def test_copy_and_diff_round_through_every_local_kind(cli: Cli) -> None:
    before = "legacy.zarr"
    for after in ("a.zip", "b.lmdb", "c.sqlite", "d.db", "e"):
        result = cli("copy", before, after, "--verify")
        assert (result.code, result.out) == (0, ""), result
        assert "copied 89 keys" in result.err
        before = after
    assert cli("diff", "legacy.zarr", "e") == (0, "", "")
    DirectoryStore("e")["scalar/0"] = b"changed"
    result = cli("diff", "legacy.zarr", "e")
    assert (result.code, result.out) == (1, "! scalar/0\n")
    found = json.loads(cli("diff", "legacy.zarr", "e", "--json").out)
    assert found == {"schema_version": 1, "entries": [{"key": "scalar/0", "kind": "different"}]}


def test_copy_with_options(cli: Cli) -> None:
    result = cli("copy", "legacy.zarr", "x", "--dry-run", "--json")
    assert json.loads(result.out)["copied"] == 89
    assert not Path("x").exists()
    cli("copy", "legacy.zarr", "x", "--source-path", "ocean", "--exclude", "surface", "-j", "2")
    assert sorted(DirectoryStore("x").listdir()) == [".zgroup", "deep"]
    assert cli("copy", "legacy.zarr", "x").code == 3
    assert cli("copy", "legacy.zarr", "x", "--if-exists", "replace", "--resume", "journal").code == 0
    assert not Path("journal").exists()


def test_pack_and_unpack(cli: Cli) -> None:
    assert cli("pack", "legacy.zarr", "p.zip").code == 0
    assert cli("pack", "legacy.zarr", "p.zip").code == 3
    assert cli("pack", "legacy.zarr", "p.zip", "--overwrite", "--json").code == 0
    assert cli("unpack", "p.zip", "p").code == 0
    assert cli("diff", "p", "legacy.zarr").code == 0


@pytest.mark.parametrize("verb", ["copy", "unpack"])
def test_an_archive_that_would_write_outside_is_refused(cli: Cli, tmp_path: Path, verb: str) -> None:
    with zipfile.ZipFile("evil.zip", "w") as archive:
        archive.writestr("good", b"1")
        archive.writestr("../../evil", b"2")
    before = set(tmp_path.rglob("*"))
    result = cli(verb, "evil.zip", "out")
    assert result.code == 3
    assert "../../evil" in result.err
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path not in before] == []
    assert not (tmp_path.parent / "evil").exists()  # where it would be, seen from out/
    assert not (tmp_path / "evil").exists()


def test_migrate(cli: Cli) -> None:
    assert json.loads(cli("migrate", "v1", "--dry-run", "--json").out)["counts"] == {"planned": 1}
    assert Path("v1/meta").exists()
    assert cli("migrate", "v1").code == 2  # nobody is here to answer
    assert Path("v1/meta").exists()
    assert cli("migrate", "v1", "-y").code == 0
    assert Path("v1/.zarray").exists()
    assert not Path("v1/meta").exists()
    result = cli("migrate", "legacy.zarr", "--json")
    assert result.code == 1  # one array cannot be report in version 3
    report = json.loads(result.out)
    assert report["counts"] == {"migrated": 22, "impossible": 1}
    assert Path("legacy.zarr/zarr.json").exists()
    assert cli("migrate", "legacy.lmdb", "--remove-v2").code == 2  # nobody is here to answer


def test_migrate_to_a_destination(cli: Cli) -> None:
    assert cli("migrate", "legacy.lmdb", "--dest", "new.zarr", "-n").code == 1
    assert not Path("new.zarr").exists()
    assert cli("migrate", "legacy.lmdb", "--dest", "new.zarr").code == 1  # one array has no equivalent
    assert cli("migrate", "legacy.lmdb", "--dest", "new.zarr", "--json").out.count('"kept"') >= 22
    Path("new.zarr/zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {"mine": 1}}')
    assert cli("migrate", "legacy.lmdb", "--dest", "new.zarr").code not in (0, 1)
    assert "mine" in Path("new.zarr/zarr.json").read_text()
    assert cli("migrate", "legacy.lmdb", "--dest", "new.zarr", "--overwrite").code == 1
    assert cli("migrate", "legacy.lmdb", "--dest", "new.zarr", "--remove-v2").code == 2
    assert cli("migrate", "legacy.lmdb", "--resume", "journal").code == 2


def test_repair(cli: Cli) -> None:
    shutil.copytree(DATA / "old" / "2.4.0" / "nested.zarr", "nested.zarr")
    before = Path("nested.zarr/grid/.zarray").read_text()
    result = cli("repair", "nested.zarr", "--dry-run", "--json")
    assert (result.code, len(json.loads(result.out)["repairs"])) == (0, 3)
    assert cli("repair", "nested.zarr").code == 2  # nobody is here to answer
    assert Path("nested.zarr/grid/.zarray").read_text() == before
    result = cli("repair", "nested.zarr", "-y")
    assert result.code == 0
    assert "grid/.zarray" in result.out
    assert json.loads(Path("nested.zarr/grid/.zarray").read_text())["dimension_separator"] == "/"
    assert "0 documents" in cli("repair", "nested.zarr", "-y").err
    assert cli("verify", "nested.zarr").code == 0
    assert cli("repair", "nested.zarr", "--spelling", "flat", "-y").code == 0
    assert Path("nested.zarr/grid/0.0").exists()


def test_verify_has_an_exit_code_for_what_was_not_looked_at(cli: Cli) -> None:
    result = cli("verify", "v1")
    assert result.code == 4
    assert "not fully checked" in result.err


def test_consolidate(cli: Cli) -> None:
    assert cli("consolidate", "legacy.zarr", "--check").code == 0
    shutil.rmtree("legacy.zarr/sparse")
    result = cli("consolidate", "legacy.zarr", "--check")
    assert (result.code, result.out) == (1, "extra sparse/.zarray\n")
    assert cli("consolidate", "legacy.zarr").code == 0
    assert json.loads(cli("consolidate", "legacy.zarr", "--check", "--json").out)["stale"] is False


def test_verify(cli: Cli) -> None:
    result = cli("verify", "legacy.zip", "--write-manifest", "sums")
    assert (result.code, result.out) == (0, "")
    assert cli("verify", "legacy.lmdb", "--manifest", "sums", "-j", "2").code == 0
    Path("legacy.zarr/sparse/0.0").write_bytes(b"junk")
    result = cli("verify", "legacy.zarr", "--manifest", "sums", "--json")
    assert result.code == 1
    assert {(problem["key"], problem["kind"]) for problem in json.loads(result.out)["problems"]} >= {
        ("sparse/0.0", "undecodable"),
        ("sparse/0.0", "manifest"),
    }
    assert cli("verify", "legacy.zarr", "--no-decode").code == 0


def test_verify_compares_with_the_checksum_of_the_tree(cli: Cli) -> None:
    checksum = dandi_checksum("legacy.zarr", "sparse")
    assert cli("verify", "legacy.zarr", "sparse", "--checksum", checksum).code == 0
    Path("legacy.zarr/sparse/.zattrs").write_bytes(b'{"a": 1}')
    result = cli("verify", "legacy.zarr", "sparse", "--checksum", checksum, "--json")
    assert result.code == 1
    (problem,) = json.loads(result.out)["problems"]
    found = dandi_checksum("legacy.zarr", "sparse")
    assert problem == {"key": "sparse", "kind": "checksum", "reason": f"the tree has {found}, not {checksum}"}
    result = cli("verify", "legacy.zarr", "--checksum", "d41d8cd98f00b204e9800998ecf8427e")
    assert result.code == 2
    assert "MD5-COUNT--SIZE" in result.err


def test_rm_and_mv(cli: Cli) -> None:
    assert cli("rm", "legacy.zarr", "ocean").code == 2  # nobody is here to answer
    dry = cli("rm", "legacy.zarr", "ocean", "--dry-run")
    assert len(dry.out.splitlines()) == 58
    assert Path("legacy.zarr/ocean").exists()
    assert cli("rm", "legacy.zarr", "ocean", "--yes").code == 0
    assert not Path("legacy.zarr/ocean").exists()
    assert cli("rm", "legacy.zarr", "ocean", "--yes").code == 3
    assert cli("mv", "legacy.zip", "stations", "moved/here").code == 0
    assert open_store("legacy.zip", mode="r").listdir("moved") == ["here"]
    assert cli("mv", "legacy.zip", "moved", "moved/below").code == 3
    assert cli("mv", "legacy.zip", "absent", "x").code == 3


def test_clean(cli: Cli) -> None:
    Path("legacy.zarr/.DS_Store").write_bytes(b"")
    assert cli("clean", "legacy.zarr", "-n").out == ".DS_Store\n"
    assert Path("legacy.zarr/.DS_Store").exists()
    assert cli("clean", "legacy.zarr", "--yes").code == 0
    assert not Path("legacy.zarr/.DS_Store").exists()
    assert cli("clean", "legacy.zarr").code == 0


def test_repack_compact_and_recover(cli: Cli) -> None:
    with open_store("legacy.zip", mode="r+") as store:
        before = dict(store)
        for _ in range(3):
            store["scalar/0"] = bytes(200_000)
        store["scalar/0"] = before["scalar/0"]
        size = Path("legacy.zip").stat().st_size
    assert cli("repack", "legacy.zip").code == 0
    assert Path("legacy.zip").stat().st_size < size
    assert cli("compact", "legacy.lmdb", "--json").code == 0
    assert cli("compact", "legacy.zarr").code == 2
    whole = Path("legacy.zip").read_bytes()
    Path("torn.zip").write_bytes(whole[:-300])
    result = cli("ls", "torn.zip")
    assert result.code == 3
    assert "recover" in result.err
    assert cli("recover", "torn.zip", "--json").code == 0
    assert dict(open_store("torn.zip", mode="r")) == before


def test_cache(cli: Cli) -> None:
    assert "fetched 89" in cli("cache", "warm", "legacy.zip", "tier", "--size", "1e9").err
    assert json.loads(cli("cache", "stats", "tier", "--json").out)["tier_entries"] == 89
    assert cli("cache", "clear", "tier").code == 2
    assert cli("cache", "clear", "tier", "--yes").code == 0
    assert json.loads(cli("cache", "stats", "tier", "--json").out)["tier_entries"] == 0


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(cli: Cli, shell: str) -> None:
    assert "_ZARRSTORE_COMPLETE" in cli("completion", shell).out


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("ls", "absent"), 3),
        (("ls",), 2),
        (("nonsense",), 2),
        (("ls", "legacy.zarr", "../.."), 3),
        (("ls", "legacy.zarr", "absent"), 3),
        (("tree", "legacy.zarr", "absent"), 3),
        (("copy", "legacy.zarr", "x", "--storage-option", "novalue"), 0),
        (("copy", "memory://a", "x", "--storage-option", "novalue"), 2),
    ],
)
def test_errors_are_one_sentence_and_no_traceback(cli: Cli, args: tuple[str, ...], code: int) -> None:
    result = cli(*args)
    assert result.code == code
    assert "Traceback" not in result.err
    assert code == 0 or result.err.strip()


def test_debug_shows_the_traceback(cli: Cli) -> None:
    result = cli("ls", "absent", "--debug")
    assert result.code == 3
    assert "Traceback" in result.err


def test_as_a_process(cli: Cli) -> None:
    done = subprocess.run([sys.executable, "-m", "zarrstore", "ls", "legacy.zip"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "ocean/" in done.stdout.split()
    piped = f"{sys.executable} -m zarrstore ls -r legacy.zip | head -1"
    done = subprocess.run(piped, shell=True, capture_output=True, text=True)
    assert (done.stdout.count("\n"), done.stderr) == (1, "")


def test_without_click_it_says_what_to_install() -> None:
    script = "import sys; sys.modules['click'] = None\nfrom zarrstore.cli import main\nmain(['ls', 'x'])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 3
    assert "pip install zarrstore[cli]" in done.stderr
    assert "Traceback" not in done.stderr


def test_migrate_into_shards(cli: Cli) -> None:
    assert cli("migrate", "legacy.lmdb", "--shards", "auto").code == 2
    assert cli("migrate", "legacy.lmdb", "--dest", "new.zarr", "--shards", "large").code == 2
    assert not Path("new.zarr").exists()
    assert cli("migrate", "legacy.lmdb", "--dest", "new.zarr", "--shards", "1MiB").code == 1  # one has no equivalent
    documents = list(Path("new.zarr").rglob("zarr.json"))
    assert sum('"sharding_indexed"' in path.read_text() for path in documents) >= 15
    assert cli("verify", "new.zarr").code == 0
