"""The verbs that show, fetch and set values, near misses, completion, and errors as JSON."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys

import pytest

import zarrstore
from tests.cli.test_cli import Cli, cli  # noqa: F401
from tests.support.cases import each_of
from zarrstore import DirectoryStore
from zarrstore.cli.examples import SUMMARIES
from zarrstore.cli.group import VERBS


@pytest.fixture
def place(tmp_path):
    store = DirectoryStore(tmp_path / "a.zarr")
    zarrstore.init_array(store, (4, 4), (2, 2), "<f4", path="ocean/temperature", compressor=None, fill_value=0.5)
    store["ocean/temperature/0.0"] = b"\x00\x00\x80?" * 3 + b"\x00\x00\xc0\x7f"
    return str(tmp_path / "a.zarr")


def test_head_prints_the_first_values(cli, place):  # noqa: F811
    assert cli("head", place, "ocean/temperature", "-n", "2").out == "[[ 1.  1.]\n [ 1. nan]]\n"


def test_dump_prints_statistics(cli, place):  # noqa: F811
    facts = json.loads(cli("dump", place, "ocean/temperature", "--statistics", "--json").out)
    assert (facts["shape"], facts["min"], facts["max"], facts["nan"]) == ([4, 4], 0.5, 1.0, 1)
    assert "values" not in facts
    assert "mean" in cli("dump", place, "ocean/temperature").out


def test_attributes_are_set_and_shown_in_versions_2_and_3(cli, place):  # noqa: F811
    zarrstore.migrate_2to3(place, f"{place}3")
    for target in (place, f"{place}3"):
        cli("attrs", target, "ocean/temperature", "--set", "units=K", "--set", "valid=[0, 1]")
        cli("attrs", target, "ocean/temperature", "--delete", "valid")
        assert json.loads(cli("attrs", target, "ocean/temperature").out) == {"units": "K"}
    assert zarrstore.verify(place).problems == ()


def test_get_and_put_move_one_value(cli, place, tmp_path):  # noqa: F811
    out = tmp_path / "chunk"
    cli("get", place, "ocean/temperature/0.0", str(out))
    assert cli("get", place, "ocean/temperature/0.0", str(out)).code == 3  # FILE is there
    assert cli("put", place, "ocean/temperature/0.0", str(out)).code == 3
    cli("put", place, "ocean/temperature/1.1", str(out))
    assert DirectoryStore(place)["ocean/temperature/1.1"] == out.read_bytes()


def test_find_takes_patterns(cli, place):  # noqa: F811
    assert cli("find", place, "temp*", "--type", "array").out == "ocean/temperature\n"
    assert cli("find", place, "*.zarray").out == "ocean/temperature/.zarray\n"
    assert cli("find", place, "nothing*").code == 1


def test_du_sums_and_ls_sorts(cli, place):  # noqa: F811
    assert len(json.loads(cli("du", "-s", place, "--json").out)["entries"]) == 1
    sizes = [row["nbytes"] for row in json.loads(cli("ls", "-r", "--sort", "size", place, "--json").out)["entries"]]
    assert sizes == sorted(sizes, reverse=True)
    assert " B " in cli("ls", "-lh", place, "ocean/temperature").out


def test_info_tells_the_ratio_and_how_much_is_written(cli, place):  # noqa: F811
    node = json.loads(cli("info", place, "ocean/temperature", "--json").out)["node"]
    assert (node["written_share"], node["ratio"]) == (0.25, 1.0)


def test_a_verb_or_path_that_is_nearly_right_is_named(cli, place):  # noqa: F811
    misspelt = cli("veryfy", place)
    assert (misspelt.code, "did you mean verify?" in misspelt.err) == (2, True)
    assert "did you mean 'ocean'?" in cli("tree", place, "oceann").err
    assert f"did you mean {str(place)!r}" in cli("tree", f"{place}r").err


def test_an_error_is_json_where_json_is_asked_for(cli, place):  # noqa: F811
    failure = json.loads(cli("tree", place, "nowhere", "--json").err)
    assert (failure["schema_version"], failure["error"]["type"]) == (1, "NodeNotFoundError")


def complete(words):
    env = {"_ZARRSTORE_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    command = [sys.executable, "-c", "from zarrstore.cli import main; main()"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**env, "PYTHONPATH": "."})
    return done.stdout.split()


def test_files_and_paths_within_a_store_are_completed(place):
    assert complete(["zarrstore", "ls", place[:-3]]) == [f"file,{place[:-3]}"]
    assert complete(["zarrstore", "tree", place, "oc"]) == ["plain,ocean/"]
    assert complete(["zarrstore", "tree", place, "ocean/t"]) == ["plain,ocean/temperature/"]
    assert complete(["zarrstore", "cat", place, "ocean/temperature/.z"]) == ["plain,ocean/temperature/.zarray"]


def test_rich_is_loaded_when_something_is_drawn(place):
    script = (
        "import sys; from zarrstore.cli.group import run; run(['ls', sys.argv[1]]); print('rich.text' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script, place], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split()[-1] == "False"


@pytest.mark.parametrize("verb", VERBS)
def test_every_help_has_an_example(cli, verb):  # noqa: F811
    shown = cli(verb, "--help").out
    assert re.search(rf"^ +(eval \"\$\()?zarrstore {verb}", shown, re.MULTILINE), shown


@each_of("verb", VERBS)
def test_the_line_of_a_verb_in_the_help_is_the_first_of_its_own(verb: str) -> None:
    command = importlib.import_module(f"zarrstore.cli.{verb}").command
    assert command.get_short_help_str(limit=400) == SUMMARIES[verb]
