"""What the command line refuses, what it exits with, and what it says when it is interrupted."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.cases import each_of
from zarrstore import DirectoryStore, init_array, init_group, open_store
from zarrstore.cli.group import VERBS, run
from zarrstore.tools.consolidate import check_consolidated, consolidate_metadata

ROOT = Path(__file__).parent.parent.parent
DATA = ROOT / "tests" / "data"


class Result(NamedTuple):
    code: int
    out: str
    err: str


Cli = Callable[..., Result]


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run a verb in a folder that holds a copy of the genuine data, and one of files that are no hierarchy."""
    shutil.copytree(DATA / "v2" / "legacy.zarr", tmp_path / "legacy.zarr")
    shutil.copy(DATA / "v2" / "legacy.zip", tmp_path / "legacy.zip")
    for name in ("thesis/chapter1.tex", "thesis/figures/map.png", "thesis/.DS_Store"):
        (tmp_path / "home" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "home" / name).write_bytes(b"precious")
    monkeypatch.chdir(tmp_path)

    def call(*args: str) -> Result:
        capfd.readouterr()
        code = run(list(args))
        return Result(code, *capfd.readouterr())

    return call


def files(folder: str = ".") -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


# Paths ----------------------------------------------------------------------------------------------------------------


@each_of(
    "args",
    [
        ("rm", "legacy.zarr", "", "-y"),
        ("rm", "", "/", "-y"),
        ("mv", "legacy.zarr", "", "x"),
        ("mv", "legacy.zarr", "ocean", ""),
        ("ls", ""),
        ("ls", "legacy.zarr", ""),
        ("tree", "legacy.zarr", ""),
        ("info", "legacy.zarr", ""),
        ("cat", "legacy.zarr", ""),
        ("du", "legacy.zarr", ""),
        ("copy", "", "x"),
        ("copy", "legacy.zarr", ""),
        ("copy", "legacy.zarr", "x", "--source-path", ""),
        ("copy", "legacy.zarr", "x", "--dest-path", ""),
        ("copy", "legacy.zarr", "x", "--resume", ""),
        ("pack", "legacy.zarr", "", "--overwrite"),
        ("unpack", "legacy.zip", ""),
        ("migrate", "legacy.zarr", ""),
        ("consolidate", "legacy.zarr", ""),
        ("verify", "legacy.zarr", ""),
        ("diff", "legacy.zarr", "legacy.zip", "--left-path", ""),
        ("diff", "", "legacy.zip"),
        ("clean", "legacy.zarr", "", "-y"),
        ("clean", "", "-y"),
        ("cache", "clear", "", "-y"),
        ("cache", "warm", "legacy.zarr", "tier", ""),
        ("compact", ""),
    ],
)
def test_an_empty_path_is_misuse_in_every_verb_and_changes_nothing(cli: Cli, args: tuple[str, ...]) -> None:
    before = files()
    result = cli(*args)
    assert result.code == 2
    assert "it is empty" in result.err
    assert files() == before


@each_of(
    "args",
    [
        ("ls", "legacy.zarr", "typo"),
        ("tree", "legacy.zarr", "typo"),
        ("info", "legacy.zarr", "typo"),
        ("cat", "legacy.zarr", "typo"),
        ("du", "legacy.zarr", "typo"),
        ("copy", "legacy.zarr", "new.zip", "--source-path", "typo"),
        ("migrate", "legacy.zarr", "typo"),
        ("consolidate", "legacy.zarr", "typo"),
        ("consolidate", "legacy.zarr", "typo", "--check"),
        ("verify", "legacy.zarr", "typo"),
        ("diff", "legacy.zarr", "legacy.zip", "--left-path", "typo"),
        ("diff", "legacy.zarr", "legacy.zip", "--right-path", "typo"),
        ("mv", "legacy.zarr", "typo", "x"),
        ("rm", "legacy.zarr", "typo", "-y"),
        ("rm", "legacy.zarr", "typo", "-n"),
        ("clean", "legacy.zarr", "typo", "-y"),
        ("cache", "warm", "legacy.zarr", "tier", "typo"),
        ("ls", "typo"),
        ("tree", "typo"),
        ("copy", "typo", "new.zip"),
        ("pack", "typo", "new.zip"),
        ("unpack", "typo", "new"),
        ("diff", "typo", "legacy.zip"),
        ("diff", "legacy.zip", "typo"),
        ("rm", "typo", "/", "-y"),
        ("cache", "stats", "typo"),
    ],
)
def test_a_missing_path_is_exit_3_in_every_verb_and_creates_nothing(cli: Cli, args: tuple[str, ...]) -> None:
    before = files()
    result = cli(*args)
    assert result.code == 3, result
    assert "typo" in result.err
    after = files()
    assert {name: after[name] for name in before} == before
    assert not [name for name in after if name.startswith("new")]


# What is not ours -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "args", [("rm", "home", "/", "-y"), ("rm", "home", "thesis", "-y"), ("clean", "home", "-y")], ids=" ".join
)
def test_what_holds_no_hierarchy_is_not_deleted_in_unless_forced(cli: Cli, args: tuple[str, ...]) -> None:
    before = files()
    result = cli(*args)
    assert (result.code, files()) == (2, before)
    assert "holds no Zarr hierarchy" in result.err
    assert "--force" in result.err
    assert cli(*args, "--force").code == 0
    assert files() != before


def test_only_a_cache_is_emptied(cli: Cli) -> None:
    DirectoryStore("values_only")["values/notes.txt"] = b"precious"
    before = files()
    for target in ("home", "legacy.zarr", "legacy.zip", "values_only"):
        result = cli("cache", "clear", target, "--yes")
        assert result.code == 2
        assert "is no cache" in result.err
    assert files() == before
    assert cli("cache", "warm", "legacy.zip", "tier", "--size", "1e9").code == 0
    assert cli("cache", "clear", "tier", "--yes").code == 0


@pytest.mark.parametrize("dest", ["new", "new.zip", "new.lmdb", "new.sqlite", "new.db"])
def test_a_dry_run_of_copy_creates_nothing(cli: Cli, dest: str) -> None:
    before = files()
    assert cli("copy", "legacy.zarr", dest, "-n").code == 0
    assert files() == before
    assert not Path(dest).exists()


def test_a_dry_run_of_copy_sees_what_is_at_the_destination(cli: Cli) -> None:
    assert cli("copy", "legacy.zarr", "legacy.zip", "-n").code == 3
    assert "skipped 89" in cli("copy", "legacy.zarr", "legacy.zip", "-n", "--if-exists", "skip").err


# Words ----------------------------------------------------------------------------------------------------------------


def test_no_message_speaks_python(cli: Cli) -> None:
    Path("torn.zip").write_bytes(Path("legacy.zip").read_bytes()[:-300])
    Path("noise.zip").write_bytes(b"noise")
    (Path("legacy.zarr") / "sparse" / ".zarray").chmod(0)
    calls = [
        ("copy", "legacy.zarr", "legacy.zip"),
        ("copy", "legacy.zip", "home/thesis/chapter1.tex"),
        ("pack", "legacy.zarr", "legacy.zip"),
        ("unpack", "legacy.zip", "legacy.zarr"),
        ("ls", "torn.zip"),
        ("ls", "noise.zip"),
        ("ls", "legacy.zarr", "../.."),
        ("cat", "legacy.zarr", "../x"),
        ("mv", "legacy.zarr", "ocean", "stations"),
        ("mv", "legacy.zarr", "ocean", "ocean/deep/x"),
        ("rm", "legacy.zip", "typo", "-y"),
        ("copy", "memory://typo", "x"),
        ("compact", "legacy.zarr"),
        ("recover", "noise.zip"),
        ("consolidate", "home", "--check"),
        ("copy", "legacy.zarr", "x", "--resume", "home/thesis/chapter1.tex"),
    ]
    for args in calls:
        result = cli(*args)
        assert result.code in (2, 3), (args, result)
        assert not re.search(
            r"=True|=False|=None|\w='|Store\(|\wError\b|\w+\(\)|\[Errno|zarrstore\.\w|Traceback", result.err
        ), result.err


def test_names_in_every_output_are_harmless_to_a_terminal(cli: Cli, tmp_path: Path) -> None:
    evil = "a\x1b[2J\x9b2J\u202e\x7f"
    store = DirectoryStore(tmp_path / "odd")
    init_group(store)
    store[f"{evil}/.zgroup"] = b'{"zarr_format": 2}'
    store[f"{evil}/.zattrs"] = json.dumps({"n": float("nan")}).encode()
    assert cli("consolidate", "odd").code == 0
    store[f"{evil}/b/.zgroup"] = b'{"zarr_format": 2}'
    for args in (
        ("ls", "odd"),
        ("ls", "odd", "--json"),
        ("ls", "-r", "odd"),
        ("tree", "odd"),
        ("tree", "odd", "--json"),
        ("du", "odd", "--json"),
        ("info", "odd", evil, "--json"),
        ("consolidate", "odd", "--check"),
        ("consolidate", "odd", "--check", "--json"),
        ("verify", "odd"),
        ("diff", "odd", "legacy.zarr"),
        ("rm", "odd", evil, "-n"),
        ("rm", "odd", f"{evil}/typo", "-y"),
        ("copy", "odd", "x", "-v"),
        ("migrate", "odd", "-n"),
    ):
        result = cli(*args)
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", result.out + result.err), args
        if "--json" in args:
            parsed = json.loads(result.out, parse_constant=lambda name: pytest.fail(f"bare {name}"))
            assert parsed["schema_version"] == 1


# The ends -------------------------------------------------------------------------------------------------------------

SLOW = """
import sys, time
import zarrstore.tools.copying as copying
import zarrstore.wrappers.readonly
from zarrstore.stores.directory import DirectoryStore

before = DirectoryStore._set

count = 0

def waiting(self, key, value):
    global count
    before(self, key, value)
    count += 1
    if count == 700:  # a batch and a part of the next
        print("waiting", flush=True)
        for _ in range(600):  # in pieces: a signal that comes just before the system call would not end one long sleep
            time.sleep(0.1)

DirectoryStore._set = waiting
from zarrstore.cli import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_copy_says_what_is_left_and_goes_on(cli: Cli, number: int, code: int) -> None:
    values = {f"a/{n}": b"value" for n in range(1500)}
    with open_store("source.zip", mode="w") as source:  # from a directory, the system would copy past `_set`
        source.update(values)
    args = ["copy", "source.zip", "dest", "--resume", "journal"]
    child = subprocess.Popen(
        [sys.executable, "-c", SLOW, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "waiting\n"
    child.send_signal(number)
    _, err = child.communicate(timeout=30)
    assert child.returncode == code
    assert "--resume JOURNAL" in err
    assert "Traceback" not in err
    result = cli(*args)
    assert (result.code, Path("journal").exists()) == (0, False)
    assert "skipped 500" in result.err
    assert dict(DirectoryStore("dest")) == values


def test_every_verb_that_changes_something_says_what_an_interruption_left() -> None:
    from zarrstore.cli.group import _LEFT

    looking = {"ls", "tree", "info", "head", "dump", "map", "cat", "get", "find", "du"}
    looking |= {"verify", "diff", "serve", "completion"}
    assert set(_LEFT) == set(VERBS) - looking


@pytest.fixture
def many(cli: Cli) -> None:
    store = DirectoryStore("many")
    init_group(store)
    init_array(store, shape=5000, chunks=1, path="a")
    store.setitems((f"a/{n}", b"") for n in range(3000))


@each_of("args", [("ls", "-r"), ("ls", "-l"), ("info",), ("tree",), ("du", "-d", "9"), ("rm", "-n")])
def test_a_closed_pipe_is_no_error(many: None, args: tuple[str, ...]) -> None:
    verb, *options = args
    call = [sys.executable, "-m", "zarrstore", verb, "many", *(["a"] if verb in ("rm", "ls") else []), *options]
    child = subprocess.Popen(
        call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert child.stdout is not None
    child.stdout.close()
    assert child.stderr is not None
    err = child.stderr.read()
    assert child.wait(timeout=30) == 0, err
    assert b"Traceback" not in err
    assert b"Exception" not in err


def test_an_answer_of_no_changes_nothing(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    before = files()
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    result = cli("rm", "legacy.zarr", "ocean")
    assert (result.code, files()) == (2, before)
    assert "nothing was changed" in result.err


# From a web server ----------------------------------------------------------------------------------------------------


def test_how_many_chunks_are_asked_for_is_an_option_of_every_verb_that_asks(
    cli: Cli, http_server: Callable[[Path], str]
) -> None:
    with open_store("www/a.zarr", mode="w") as store:
        init_array(store, shape=30, chunks=10, dtype="i1", fill_value=0, path="a")
        consolidate_metadata(store)
    url = http_server(Path("www")).rstrip("/") + "/a.zarr"
    verbs = (
        ("copy", url, "copied.zarr"),
        ("pack", url, "packed.zip"),
        ("pack", url, "planned.zip", "-n"),
        ("verify", url),
        ("diff", url, "www/a.zarr"),
        ("du", url),
        ("info", url, "a"),
        ("ls", "-l", url, "a"),
    )
    for verb in verbs:
        refused = cli(*verb, "--max-questions", "2")
        assert refused.code == 3, verb
        assert "3 chunks" in refused.err, verb
        assert "--max-questions 3" in refused.err, verb
        assert not any(Path(name).exists() for name in ("copied.zarr", "packed.zip", "planned.zip"))
    for verb in verbs:
        allowed = cli(*verb, "--max-questions", "3")
        assert allowed.code == (4 if verb[0] == "verify" else 0), (verb, allowed.err)
        if verb[0] not in ("info", "ls"):
            assert "3 chunks are asked for by name" in allowed.err, verb
            assert allowed.err.count("cannot be listed") == 1, verb
    assert "would pack 6 keys" in cli("pack", url, "planned.zip", "-n").err
    assert not Path("planned.zip").exists()


# mv -------------------------------------------------------------------------------------------------------------------


def test_mv_keeps_consolidated_metadata_true(cli: Cli) -> None:
    assert cli("mv", "legacy.zarr", "ocean", "moved/here").code == 0
    with open_store("legacy.zarr", mode="r") as store:
        assert not check_consolidated(store)
        assert not any(key.startswith("ocean/") for key in store)
