"""DirectoryStore and symbolic links: those that stay within the root are followed, those that leave it are not."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from tests.support.cases import each_of
from tests.support.world import EscapeSentinel
from zarrstore import copy_store
from zarrstore.errors import ConflictError, InvalidKeyError
from zarrstore.stores.directory import DirectoryStore, folders
from zarrstore.stores.nested import NestedDirectoryStore

pytestmark = pytest.mark.filterwarnings("ignore:.*counts as absent:RuntimeWarning")


@pytest.fixture
def out(tmp_path):
    out = tmp_path / "out"
    (out / "sub").mkdir(parents=True)
    (out / "secret").write_bytes(b"secret")
    (out / "sub" / "secret").write_bytes(b"secret")
    return out


@pytest.fixture
def root(tmp_path, out):
    """Return a root with one value, a tree, links that leave the root, and links that do not."""
    root = tmp_path / "root"
    (root / "real" / "deep").mkdir(parents=True)
    (root / "real" / "x").write_bytes(b"x")
    (root / "real" / "deep" / "y").write_bytes(b"y")
    (root / "a").mkdir()
    (root / "a" / "value").write_bytes(b"v")
    for name, target in {
        "leaf": out / "secret",
        "folder": out,
        "relative": "../out",
        "a/leaf": "../../out/secret",
        "a/folder": "../../out/sub",
        "root2": tmp_path / "root2",  # begins as the root does, and is not within it
        "dangling": out / "absent",
        "self": "self",
    }.items():
        (root / name).symlink_to(target)
    (tmp_path / "root2").mkdir()
    (tmp_path / "root2" / "secret").write_bytes(b"secret")
    return root


OUTSIDE = (
    *("leaf", "folder/secret", "folder/sub/secret", "relative/secret", "a/leaf", "a/folder/secret"),
    *("root2/secret", "dangling", "self", "self/x", "folder", "dangling/x"),
)


def snapshot(folder: Path) -> dict[str, object]:
    """Return all that is below a folder: contents of files, targets of links."""
    return {
        str(Path(at, name)): os.readlink(Path(at, name)) if Path(at, name).is_symlink() else Path(at, name).read_bytes()
        for at, folders, names in os.walk(folder)
        for name in [*names, *(name for name in folders if Path(at, name).is_symlink())]
    }


@pytest.mark.parametrize("kind", [DirectoryStore, NestedDirectoryStore])
def test_what_lies_behind_a_link_that_leaves_the_root_is_absent_and_stays_as_it_is(root, out, kind):
    store = kind(root)
    before = snapshot(root.parent)
    with EscapeSentinel(root) as sentinel:
        assert sorted(store) == ["a/value", "real/deep/y", "real/x"]
        assert len(store) == 3
        assert store.listdir() == ["a", "real"]
        assert store.listdir("a") == ["value"]
        for key in OUTSIDE:
            assert (key in store, store.get(key), store.getsize(key)) == (False, None, 0), key
            assert (store.listdir(key), list(store.keys_below(key))) == ([], [])
            assert dict(store.getitems([key])) == {}
            for act in (
                lambda key=key: store.getrange(key, 0, 3),
                lambda key=key: store.getsuffix(key, 3),
                lambda key=key: store.__delitem__(key),
                lambda key=key: store.rename(key, "moved"),
            ):
                with pytest.raises(KeyError):
                    act()
            store.delitems([key])
        for key in (
            "folder/secret",
            "folder/new",
            "folder/new/deep",
            "a/folder/new",
            "relative/sub/secret",
            "root2/new",
        ):
            with pytest.raises(PermissionError, match=r"link that leaves .* follow_symlinks=True follows it"):
                store[key] = b"written"
            with pytest.raises(PermissionError):
                store.rename("a/value", key)
            with pytest.raises(PermissionError):
                store.setitems({key: b"written"})
        for path in ("folder", "a/folder", "folder/sub", "relative", "root2", "dangling", "self"):
            store.rmdir(path)
    assert sentinel.escapes == []
    assert snapshot(root.parent) == before


def test_clear_removes_links_and_never_what_they_lead_to(root, out):
    before = snapshot(out)
    with EscapeSentinel(root) as sentinel:
        DirectoryStore(root).clear()
    assert (os.listdir(root), snapshot(out), sentinel.escapes) == ([], before, [])


def test_a_value_set_where_a_link_stands_replaces_the_link(root, out):
    (root / "inside").symlink_to("real/x")
    store = DirectoryStore(root)
    with EscapeSentinel(root) as sentinel:
        for key in ("leaf", "dangling", "self", "inside"):
            store[key] = b"new"
    assert sentinel.escapes == []
    assert [store[key] for key in ("leaf", "dangling", "self", "inside", "real/x")] == [b"new"] * 4 + [b"x"]
    assert ((out / "secret").read_bytes(), (out / "absent").exists()) == (b"secret", False)


def test_links_within_the_root_are_followed(root):
    (root / "value").symlink_to("real/x")
    (root / "tree").symlink_to("real")
    (root / "absolute").symlink_to(root / "real")
    store = DirectoryStore(root)
    assert (store["value"], store["tree/x"], store["tree/deep/y"], store["absolute/x"]) == (b"x", b"x", b"y", b"x")
    assert store.getrange("value", 0, 1) == b"x"
    assert ("value" in store, store.getsize("value"), store.listdir("tree")) == (True, 1, ["deep", "x"])
    assert {"value", "tree/x", "tree/deep/y", "absolute/x"} <= set(store)
    store["tree/new"] = b"n"
    assert store["real/new"] == b"n"
    with pytest.raises(ConflictError, match="holds 'tree/"):
        store["tree"] = b"lost?"
    store["folder"] = b"value"  # there is nothing below a link that leaves the root
    assert store["folder"] == b"value"
    del store["tree/x"]
    assert "real/x" not in store
    store.rmdir("tree")
    store["tree"] = b"value"
    assert (store["tree"], store["real/deep/y"]) == (b"value", b"y")


def test_a_renamed_link_leads_where_it_led(root):
    (root / "tree").symlink_to("real")
    store = DirectoryStore(root)
    store.rename("tree", "deep/er/tree")
    assert (store["deep/er/tree/x"], "tree" in store.listdir(), store["real/x"]) == (b"x", False, b"x")


def test_a_loop_of_links_is_listed_to_an_end(root):
    (root / "a" / "up").symlink_to("..")
    (root / "a" / "across").symlink_to("../real")
    (root / "real" / "back").symlink_to("../a")
    keys = list(DirectoryStore(root))
    assert len(keys) == len(set(keys)) < 30
    assert {"a/value", "a/across/x", "real/back/value"} <= set(keys)


def test_follow_symlinks_follows_them(root, out):
    store = DirectoryStore(root, follow_symlinks=True)
    assert (store["leaf"], store["folder/secret"], store["a/folder/secret"]) == (b"secret",) * 3
    assert {"leaf", "folder/secret", "folder/sub/secret", "a/leaf", "root2/secret"} <= set(store)
    assert "dangling" not in set(store)
    assert (store.get("dangling"), store.get("self"), "dangling" in store) == (None, None, False)
    store["folder/new"] = b"written"
    assert (out / "new").read_bytes() == b"written"
    with pytest.raises(ConflictError):
        store["folder"] = b"lost?"
    store.rmdir("folder")
    assert ((root / "folder").is_symlink(), (out / "secret").read_bytes()) == (False, b"secret")


def test_a_directory_that_becomes_a_link_is_noticed_within_a_second(root, out, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(folders, "monotonic", lambda: now[0])
    store = DirectoryStore(root)
    store["b/value"] = b"1"
    (root / "b").rename(root / "c")
    (root / "b").symlink_to(out)
    now[0] += 1.1
    assert (store.get("b/secret"), "b/secret" in store) == (None, False)
    with pytest.raises(PermissionError):
        store["b/new"] = b"1"
    assert not (out / "new").exists()


def test_a_link_put_in_the_place_of_a_root_s_parent_is_the_user_s_business(tmp_path, out):
    (tmp_path / "way").symlink_to(out)
    store = DirectoryStore(tmp_path / "way" / "root")
    store["a/b"] = b"1"
    assert (out / "root" / "a" / "b").read_bytes() == b"1"
    assert (list(store), pickle.loads(pickle.dumps(store))["a/b"]) == (["a/b"], b"1")


def test_a_link_with_a_reserved_name_is_nothing(root, out):
    (root / ".__zarrstore-x").symlink_to(out)
    store = DirectoryStore(root)
    with pytest.raises(InvalidKeyError):
        store[".__zarrstore-x/secret"]
    assert ".__zarrstore-x" not in store.listdir()


@each_of(
    ("links", "key", "follow", "reason"),
    [
        ({"a/0": "../../out/secret"}, "a/0", False, "leads out of the root: .* follow_symlinks=True follows it"),
        ({"a/0": "../annex/not/here"}, "a/0", False, "leads nowhere"),
        ({"a/0": "../annex/not/here"}, "a/0", True, "leads nowhere"),
        ({"a/0": "0"}, "a/0", False, "leads nowhere"),
        ({"b": "../out"}, "b/secret", False, "leads out of the root"),
    ],
    ids=str,
)
@each_of(
    "look",
    [
        lambda store, key: store.get(key),
        lambda store, key: key in store,
        lambda store, key: dict(store.getitems([key])),
        lambda store, key: list(store),
        lambda store, key: copy_store(store, {}),
    ],
)
def test_data_that_a_link_makes_absent_is_a_warning_and_only_one(tmp_path, out, links, key, follow, reason, look):
    root = tmp_path / str(sum(1 for _ in tmp_path.iterdir()))
    (root / "a").mkdir(parents=True)
    (root / "a" / "1").write_bytes(b"1")
    for name, target in links.items():
        (root / name).symlink_to(target)
    store = DirectoryStore(root, follow_symlinks=follow)
    assert "a/none" not in store
    with pytest.warns(RuntimeWarning, match=reason):
        look(store, key)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (store.get(key), sorted(store)) == (None, ["a/1"])


def test_links_within_the_root_and_plain_absence_are_no_warning(root, recwarn):
    for name in ("leaf", "folder", "relative", "a/leaf", "a/folder", "root2", "dangling", "self"):
        (root / name).unlink()
    (root / "value").symlink_to("real/x")
    for follow in (False, True):
        store = DirectoryStore(root, follow_symlinks=follow)
        assert (store["value"], store.get("none"), store.get("none/x"), "real" in store) == (b"x", None, None, False)
        assert sorted(store) == ["a/value", "real/deep/y", "real/x", "value"]
    assert [str(warning.message) for warning in recwarn] == []


# Names ----------------------------------------------------------------------------------------------------------------


def test_a_name_that_is_no_text_is_a_warning_of_the_listing(tmp_path):
    store = DirectoryStore(tmp_path / "d")
    store["a/1"] = b"1"
    with open(os.fsencode(tmp_path / "d" / "a") + b"/\xff", "wb"):
        pass
    with pytest.warns(RuntimeWarning, match=r"'a/.udcff' in .* is a name that is no text in utf-8: .*copy shows it$"):
        assert list(store) == ["a/1"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert copy_store(store, {})[0] == 1


def test_in_a_locale_without_utf_8_the_warning_names_the_way_out(tmp_path):
    store = DirectoryStore(tmp_path / "d")
    store["a/é"] = b"1"
    code = f"import zarrstore; print(list(zarrstore.DirectoryStore({str(tmp_path / 'd')!r})))"
    env = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    result = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
    assert "no text in ascii" in result.stderr
    assert "PYTHONUTF8=1 reads names as UTF-8" in result.stderr
