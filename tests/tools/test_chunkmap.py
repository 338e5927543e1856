"""The map of an array's chunks: written, missing, damaged."""

from __future__ import annotations

import json

import pytest

import zarrstore
from tests.cli.test_cli import Cli, cli  # noqa: F401
from zarrstore import DirectoryStore
from zarrstore.tools.chunkmap import chunk_map


@pytest.fixture
def place(tmp_path):
    store = DirectoryStore(tmp_path / "a.zarr")
    zarrstore.init_array(store, (2, 4, 6), (1, 2, 2), "|u1", path="a", compressor=None, fill_value=0)
    store.update({"a/0.0.0": b"1234", "a/1.1.2": b"1234", "a/0.1.1": b"12", "a/9.9.9": b"beyond the grid"})
    return str(tmp_path / "a.zarr")


def test_a_map_shows_what_is_written_missing_and_damaged(place):
    assert str(chunk_map(place, "a")).splitlines()[1:-1] == ["█··", "·▓·", "···", "··█"]
    assert str(chunk_map(place, "a", decode=True)).splitlines()[1:-1] == ["█··", "·x·", "···", "··█"]
    assert "3 of 12 chunks written, 1 damaged, 9 missing, 10 B" in chunk_map(place, "a", decode=True).title


def test_the_map_of_version_3_is_the_same(place, tmp_path):
    zarrstore.migrate_2to3(place, tmp_path / "v3.zarr")
    assert str(chunk_map(tmp_path / "v3.zarr", "a")) == str(chunk_map(place, "a"))


def test_a_large_grid_is_drawn_in_few_cells():
    store = {}
    zarrstore.init_array(store, (100, 1000), (1, 1), "|u1", path="a", compressor=None)
    store["a/99.999"] = b"1"
    lines = str(chunk_map(store, "a")).splitlines()[1:-1]
    assert (len(lines) <= 40, {len(line) for line in lines}, lines[-1][-1]) == (True, {100}, "░")


def test_what_has_no_map_is_refused():
    store = {}
    zarrstore.init_array(store, (10**4, 10**4), (1, 1), "|u1", path="a")
    with pytest.raises(ValueError, match="100,000,000 chunks"):
        chunk_map(store, "a")
    with pytest.raises(KeyError, match="no array at the root"):
        chunk_map(store)


@pytest.mark.parametrize(("suffix", "head"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_a_map_is_drawn_into_a_file(cli, place, tmp_path, suffix, head):  # noqa: F811
    assert cli("map", place, "a", "--decode", "-o", str(tmp_path / f"map.{suffix}")).code == 1
    assert (tmp_path / f"map.{suffix}").read_bytes().startswith(head)
    assert json.loads(cli("map", place, "a", "--json").out)["grid"] == [2, 2, 3]
    assert cli("map", place, "a", "-o", "map.gif").code == 2


def test_an_array_of_no_axes_has_one_cell():
    store = {}
    zarrstore.init_array(store, (), dtype="<f8", path="a", compressor=None)
    store["a/0"] = bytes(8)
    assert str(chunk_map(store, "a")).splitlines()[1] == "█"


def test_du_draws_what_is_large(cli, place, tmp_path):  # noqa: F811
    result = cli("du", place, "--plot", str(tmp_path / "sizes.svg"), "--json")
    assert (result.code, json.loads(result.out)["entries"][0]["path"]) == (0, "")
    assert (tmp_path / "sizes.svg").read_bytes().startswith(b"<?xml")
    assert cli("du", place, "--plot", "sizes.txt").code == 2


def test_the_report_of_verify_maps_each_damaged_array(cli, place, tmp_path):  # noqa: F811
    store = DirectoryStore(place)
    zarrstore.init_array(store, (4, 4), (2, 2), "|u1", path="<b>", compressor=None)
    store.update({f"<b>/{i}.{j}": b"1234" for i in range(2) for j in range(2)})
    page = tmp_path / "report.html"
    assert cli("verify", place, "--report", str(page)).code == 1
    text = page.read_text()
    assert "a/0.1.1" in text
    assert text.count("data:image/png;base64,") == 1  # of the one array that is damaged
    store["<b>/0.1"] = b"1"
    assert cli("verify", place, "--report", str(page)).code == 1
    text = page.read_text()
    assert text.count("data:image/png;base64,") == 2
    assert "<b>" not in text
    assert "&lt;b&gt;/0.1" in text


def test_a_map_from_a_report_decodes_nothing(place, monkeypatch):
    report = zarrstore.verify(place)
    monkeypatch.setattr("zarrstore.tools.chunkmap.verify", None)
    assert chunk_map(place, "a", report=report).damaged == {(0, 1, 1)}
