from __future__ import annotations

import io
import json
import logging
import pickle
import re
import sys
import threading

import pytest

from zarrstore import DictStore
from zarrstore.testing import FailingStore
from zarrstore.wrappers.usagelog import UsageLogStore


def use(store):
    store["a/0"] = b"12345"
    store["a/0"]
    store.get("absent")
    assert "a/0" in store
    store.getrange("a/0", 1, 3)
    store.getrange("a/0", 1)
    store.getsuffix("a/0", 2)
    dict(store.getitems(["a/0", "absent"]))
    store.update({"b": b"1", "c": b"22"})
    store.listdir("a")
    list(iter(store))
    len(store)
    store.getsize("a")
    store.rename("b", "d")
    del store["d"]
    store.delitems(["c"])
    store.rmdir("a")
    store.clear()
    store.flush()
    store.close()


LINES = """\
set('a/0', 5 bytes) -> ok
get('a/0') -> 5 bytes
get('absent') -> absent
contains('a/0') -> ok
get_range('a/0', 1..3) -> 2 bytes
get_range('a/0', 1..) -> 4 bytes
get_suffix('a/0', 2) -> 2 bytes
get_many(2 keys) -> ok
get_item('a/0') -> 5 bytes
get_item('absent') -> absent
set_many(2 keys, 3 bytes) -> ok
listdir('a') -> 1 names
keys('') -> 3 keys
count() -> ok
getsize('a') -> ok
contains('b') -> ok
contains('d') -> absent
listdir('d') -> 0 names
rename('b', 'd') -> ok
delete('d') -> ok
delete_many(1 keys) -> ok
rmdir('a') -> ok
clear() -> ok
flush() -> ok
""".splitlines()


def test_every_call_is_a_line_with_sizes_and_milliseconds():
    lines = []
    use(UsageLogStore(DictStore(), lines.append))
    assert [re.sub(r", \d+\.\d{3} ms$", "", line) for line in lines] == LINES


def test_every_call_is_a_json_object_with_the_same_facts():
    lines = []
    use(UsageLogStore(DictStore(), lines.append, json=True))
    found = [json.loads(line) for line in lines]
    assert all(type(one.pop("ms")) is float for one in found)
    assert len(found) == len(LINES)
    assert found[:8] == [
        {"method": "set", "key": "a/0", "outcome": "ok", "bytes": 5},
        {"method": "get", "key": "a/0", "outcome": "ok", "bytes": 5},
        {"method": "get", "key": "absent", "outcome": "absent", "bytes": 0},
        {"method": "contains", "key": "a/0", "outcome": "ok"},
        {"method": "get_range", "key": "a/0", "start": 1, "stop": 3, "outcome": "ok", "bytes": 2},
        {"method": "get_range", "key": "a/0", "start": 1, "stop": None, "outcome": "ok", "bytes": 4},
        {"method": "get_suffix", "key": "a/0", "n": 2, "outcome": "ok", "bytes": 2},
        {"method": "get_many", "count": 2, "outcome": "ok"},
    ]
    assert {"method": "set_many", "outcome": "ok", "bytes": 3, "count": 2} in found
    assert {"method": "rename", "source": "b", "destination": "d", "outcome": "ok"} in found


def test_a_failed_call_is_logged_with_the_name_of_its_error():
    lines = []
    store = UsageLogStore(FailingStore({"a": b"1"}, PermissionError("403")), lines.append)
    with pytest.raises(PermissionError):
        store["a"]
    with pytest.raises(PermissionError):
        list(iter(store))
    assert [line.rpartition(",")[0] for line in lines] == [
        "get('a') -> PermissionError",
        "keys('') -> PermissionError",
    ]


def test_the_prefix_is_asked_for_at_each_line():
    lines, count = [], iter(range(9))
    store = UsageLogStore({"a": b"1"}, lines.append, prefix=lambda: f"#{next(count)} ")
    store["a"], store["a"]
    assert [line[:6] for line in lines] == ["#0 get", "#1 get"]
    lines.clear()
    UsageLogStore({"a": b"1"}, lines.append, prefix="job 7", json=True)["a"]
    assert json.loads(lines[0])["prefix"] == "job 7"


def test_lines_go_to_a_path_a_file_or_a_logger(tmp_path, caplog):
    path = tmp_path / "usage.log"
    with UsageLogStore({"a": b"1"}, path) as store:
        store["a"]
        assert path.read_text().startswith("get('a') -> 1 bytes, ")  # at once, not when it is closed
    with UsageLogStore({"a": b"1"}, str(path)) as store:
        store["a"]
    assert path.read_text().count("\n") == 2
    file = io.StringIO()
    with UsageLogStore({"a": b"1"}, file) as store:
        store["a"]
    assert re.fullmatch(r"get\('a'\) -> 1 bytes, .* ms\n", file.getvalue())
    with caplog.at_level(logging.INFO):
        UsageLogStore({"a%s": b"1"}, logging.getLogger("usage"))["a%s"]
    messages = [record.getMessage() for record in caplog.records if record.name == "usage"]
    assert messages[0].startswith("get('a%s') -> 1 bytes")
    with pytest.raises(TypeError, match="cannot log to int"):
        UsageLogStore({}, 7)


def test_an_error_of_the_log_never_fails_a_call_and_is_told_once(recwarn):
    def full(line):
        raise OSError(28, "No space left on device")

    store = UsageLogStore({"a": b"1"}, full)
    assert (store["a"], store["a"]) == (b"1", b"1")
    # What other tests left to the garbage collector may warn meanwhile.
    warned = [str(one.message) for one in recwarn if one.category is RuntimeWarning and "usage log" in str(one.message)]
    assert len(warned) == 1
    assert warned[0].startswith("the usage log of KVStore(<dict>) is incomplete")


def test_it_pickles_with_its_log(tmp_path, capsys):
    path = tmp_path / "usage.log"
    store = UsageLogStore(DictStore({"a": b"1"}), path, json=True)
    copy = pickle.loads(pickle.dumps(store))
    store["a"], copy["a"]
    assert path.read_text().count('"method": "get"') == 2
    for log in (sys.stderr, logging.getLogger("usage")):
        assert pickle.loads(pickle.dumps(UsageLogStore(DictStore(), log))).log is log


def test_threads_write_whole_lines(tmp_path):
    path = tmp_path / "usage.log"
    store = UsageLogStore(DictStore({"a": b"1"}), path, json=True)

    def work():
        for _ in range(200):
            store["a"]

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = path.read_text().splitlines()
    assert len(lines) == 800
    assert all(json.loads(line)["key"] == "a" for line in lines)
