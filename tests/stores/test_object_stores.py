"""obstore and OpenDAL through the whole suite: in memory, on local files, on a real S3 server; and their traps."""

from __future__ import annotations

import datetime
import errno
import os
import pickle
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.support.cases import each_of
from zarrstore.errors import ConflictError, InvalidKeyError, StoreReadError
from zarrstore.testing import StoreConformance, tree

obstore = pytest.importorskip("obstore", reason="needs obstore: pip install zarrstore[obstore]")
opendal = pytest.importorskip("opendal", reason="needs opendal: pip install zarrstore[opendal]")

from zarrstore.stores.obstore import ObstoreStore  # noqa: E402
from zarrstore.stores.opendal import OpenDALStore  # noqa: E402


class ObstoreSuite(StoreConformance):
    forks = False  # the threads of obstore and of OpenDAL do not survive one

    def tree(self) -> dict[str, bytes]:
        # obstore has no control characters in names.
        return {key: value for key, value in super().tree().items() if key.isprintable()}

    def test_a_name_that_obstore_refuses_is_refused_in_words(self, store: Any) -> None:
        assert "line\nbreak" not in store
        store.delitems(["line\nbreak"])
        with pytest.raises(InvalidKeyError, match="obstore cannot hold it"):
            store["line\nbreak"] = b"1"


class TestObstoreInMemory(ObstoreSuite):
    pickles = False  # obstore's memory cannot be pickled

    def make_store(self, tmp_path: Path) -> Any:
        return ObstoreStore(obstore.store.MemoryStore())


class TestObstoreOnFiles(ObstoreSuite):
    def make_store(self, tmp_path: Path) -> Any:
        return ObstoreStore(obstore.store.LocalStore(tmp_path / "root", mkdir=True, automatic_cleanup=True))

    def reopen(self, store: Any, tmp_path: Path) -> Any:
        return self.make_store(tmp_path)


class TestOpenDALOnFiles(StoreConformance):
    forks = False

    def make_store(self, tmp_path: Path) -> Any:
        aside = str(tmp_path / "aside")
        return OpenDALStore(opendal.Operator("fs", root=str(tmp_path / "root"), atomic_write_dir=aside))

    def reopen(self, store: Any, tmp_path: Path) -> Any:
        return self.make_store(tmp_path)


# S3.


@pytest.fixture(scope="module")
def bucket(s3_server: Any) -> Any:
    name = s3_server.make_bucket()
    yield name
    s3_server.drop_bucket(name)


def on_s3(library: str, server: Any, bucket: str, prefix: str, retries: int = 0, **options: Any) -> Any:
    """Return a store at a prefix of a bucket. By default it repeats no request, so that they can be counted."""
    access = {"endpoint": server.endpoint, "access_key_id": server.key, "secret_access_key": server.secret}
    if library == "opendal":
        access |= {"region": "us-east-1", "bucket": bucket, "root": f"/{prefix}"}
        return OpenDALStore(opendal.Operator("s3", **access), **options)
    place = obstore.store.S3Store(
        bucket,
        prefix=prefix,
        region="us-east-1",
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
        retry_config={"max_retries": retries, "retry_timeout": datetime.timedelta(seconds=5)},
        **access,
    )
    return ObstoreStore(place, **options)


class TestObstoreOnS3(ObstoreSuite):
    examples = 1
    library = "obstore"

    @pytest.fixture(autouse=True)
    def _server(self, s3_server: Any, bucket: str) -> None:
        self.server, self.bucket = s3_server, bucket
        self.prefix = uuid.uuid4().hex

    def make_store(self, tmp_path: Path) -> Any:
        # The gateway answers 500 now and then to a read beside a write of the same name.
        return on_s3(self.library, self.server, self.bucket, f"{self.prefix}/{tmp_path.name}", retries=3)

    def reopen(self, store: Any, tmp_path: Path) -> Any:
        return self.make_store(tmp_path)


@pytest.mark.slow
class TestOpenDALOnS3(TestObstoreOnS3):
    library = "opendal"
    test_a_name_that_obstore_refuses_is_refused_in_words = None  # type: ignore[assignment]

    def tree(self) -> dict[str, bytes]:
        return StoreConformance.tree(self)


@pytest.fixture(params=["obstore", "opendal"])
def counted(request: pytest.FixtureRequest, s3_counted: Any, bucket: str) -> Any:
    server, proxy = s3_counted
    return on_s3(request.param, server, bucket, uuid.uuid4().hex), proxy


def spent(proxy: Any) -> dict[str, int]:
    """Return the requests since the last look, by method."""
    found = dict(proxy.counts)
    proxy.reset()
    return found


def test_one_request_for_each_get_set_and_part(counted: Any) -> None:
    store, proxy = counted
    for n in range(20):
        store[f"a/{n}"] = b"%d" % (n + 100)
    assert spent(proxy) == {"PUT": 20}
    assert [store[f"a/{n}"] for n in range(20)] == [b"%d" % (n + 100) for n in range(20)]
    assert store.get("a/none") is None
    assert spent(proxy) == {"GET": 21}
    assert ("a/1" in store, "a/none" in store, store.getsize("a/1")) == (True, False, 3)
    assert spent(proxy) == {"HEAD": 3}
    assert (store.getrange("a/12", 1), store.getrange("a/12", 0, 2)) == (b"12", b"11")
    assert spent(proxy) == {"GET": 2}


def test_a_batch_overlaps_its_requests(counted: Any) -> None:
    store, proxy = counted
    items = {f"a/{n}": bytes(n) for n in range(60)}
    proxy.slow(0.02)
    store.update(items)
    assert proxy.busiest > 8
    assert spent(proxy) == {"PUT": 60}
    assert dict(store.getitems([*items, "a/none"])) == items
    assert proxy.busiest > 8
    assert spent(proxy) in ({"GET": 61}, {"GET": 61, "HEAD": 1})  # obstore asks for the size of the empty value


@pytest.mark.parametrize("number, pages", [(205, 1), pytest.param(1105, 2, marks=pytest.mark.slow)])
def test_obstore_deletes_by_the_thousand(s3_counted: Any, bucket: str, number: int, pages: int) -> None:
    server, proxy = s3_counted
    store = on_s3("obstore", server, bucket, uuid.uuid4().hex)
    store.update({f"a/{n}": b"1" for n in range(number)} | {"ab": b"2"})
    spent(proxy)
    store.delitems([*(f"a/{n}" for n in range(0, 200, 2)), "none"])
    assert spent(proxy) == {"POST": 1}
    assert len(store.listdir("a")) == number - 100
    assert spent(proxy) == {"GET": pages}
    store.rmdir("a")
    assert spent(proxy) == {"GET": pages, "POST": pages}
    assert dict(store) == {"ab": b"2"}


def test_a_rename_is_copied_by_the_server(s3_counted: Any, bucket: str) -> None:
    server, proxy = s3_counted
    store = on_s3("obstore", server, bucket, uuid.uuid4().hex)
    items = {f"a/{n}": b"%d" % n for n in range(50)}
    store.update({**items, "one": b"1"})
    spent(proxy)
    store.rename("a", "b/c")
    used = spent(proxy)
    assert (used["PUT"], used["POST"]) == (51, 1)  # one of them for a value that is not there
    assert sum(used.values()) <= 51 + 1 + 4
    store.rename("one", "two")
    assert sum(spent(proxy).values()) <= 5
    assert dict(store) == {f"b/c/{n}": b"%d" % n for n in range(50)} | {"two": b"1"}
    with pytest.raises(KeyError):
        store.rename("absent", "x")


def test_a_refusal_says_who_asked_and_shows_no_secret(s3_server: Any, bucket: str) -> None:
    wrong = type(s3_server)(s3_server.endpoint, "AKIAWRONG", "hunter2")
    for library in ("obstore", "opendal"):
        with pytest.raises(StoreReadError, match="asked with") as refused:
            on_s3(library, wrong, bucket, "x")["a"]
        assert refused.value.permanent
        assert "hunter2" not in f"{refused.value!r} {refused.value.store}"
    with pytest.raises(StoreReadError, match=r"with the key AKIA\.\.\. at http://127.*skip_signature"):
        on_s3("obstore", wrong, bucket, "x")["a"]


def test_white_space_at_the_ends_of_a_name_is_kept_or_refused() -> None:
    memory = OpenDALStore(opendal.Operator("memory"))
    memory["a"] = b"1"
    for name in (" a", "a ", "\ta", "a\u3000", "a\n"):
        with pytest.raises(InvalidKeyError, match="trims white space"):
            memory[name] = b"2"
        assert (memory.get(name), name in memory, dict(memory.getitems([name]))) == (None, False, {})
        with pytest.raises(KeyError):
            del memory[name]
        memory.delitems([name])
    assert dict(memory) == {"a": b"1"}


READS = {
    "get": lambda store: store["a/x"],
    "getitems": lambda store: dict(store.getitems(["a/x"])),
    "in": lambda store: "a/x" in store,
    "getrange": lambda store: store.getrange("a/x", 1, 3),
    "getsuffix": lambda store: store.getsuffix("a/x", 2),
    "getsize": lambda store: store.getsize("a/x"),
}


@pytest.mark.parametrize("status", [403, 500])
@each_of("how", READS)
def test_a_refusal_or_failure_of_the_server_is_never_absence(status: int, how: str, counted: Any) -> None:
    store, proxy = counted
    store["a/x"] = b"data"
    proxy.fail(status)
    with pytest.raises(StoreReadError, match="'a/x'") as failed:
        READS[how](store)
    assert "\n" not in str(failed.value)
    with pytest.raises(Exception, match=r".") as failed:
        store["a/x"] = b"new"
    assert "while setting 'a/x'" in failed.value.__notes__[0]
    proxy.heal()
    assert store["a/x"] == b"data"


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_listing_that_fails_is_not_an_empty_one(status: int, s3_counted: Any, bucket: str) -> None:
    server, proxy = s3_counted
    # Not OpenDAL: it lists without letting other threads run, and the proxy is one.
    store = on_s3("obstore", server, bucket, uuid.uuid4().hex)
    store["a/x"] = b"data"
    proxy.fail(status)
    for look in (lambda: list(store), lambda: store.listdir("a"), lambda: store.rmdir("a"), lambda: len(store)):
        with pytest.raises(StoreReadError):
            look()


@each_of("how", ["get", "getitems", "getrange"])
def test_a_cut_connection_gives_no_short_value(how: str, counted: Any) -> None:
    store, proxy = counted
    store["a/x"] = bytes(100_000)
    proxy.cut(20_000, "a/x")
    with pytest.raises(StoreReadError):
        {"getrange": lambda store: store.getrange("a/x", 0, 50_000)}.get(how, READS[how])(store)


@pytest.mark.parametrize("library", ["obstore", "opendal"])
def test_a_403_is_absence_for_those_who_say_so(library: str, s3_counted: Any, bucket: str) -> None:
    server, proxy = s3_counted
    refusals = {
        "obstore": obstore.exceptions.PermissionDeniedError,
        "opendal": opendal.exceptions.PermissionDenied,
    }
    lenient = on_s3(library, server, bucket, "x", missing_is=(refusals[library],))
    proxy.fail(403)
    assert lenient.get("a") is None
    assert dict(lenient.getitems(["a", "b"])) == {}
    copy = pickle.loads(pickle.dumps(lenient))
    assert copy.get("a") is None
    proxy.heal()
    proxy.fail(500)
    with pytest.raises(StoreReadError):
        lenient.get("a")


# Local files, and the traps.


@pytest.fixture(params=["obstore", "opendal"])
def local(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    (tmp_path / "root").mkdir()
    if request.param == "obstore":
        return ObstoreStore(obstore.store.LocalStore(tmp_path / "root"))
    return OpenDALStore(opendal.Operator("fs", root=str(tmp_path / "root")))


def test_values_are_plain_files_under_the_names_of_their_keys(local: Any, tmp_path: Path) -> None:
    items = {key: value for key, value in tree(1000).items() if key.isprintable()}
    local.update(items)
    root = tmp_path / "root"
    assert {str(at.relative_to(root)): at.read_bytes() for at in root.rglob("*") if at.is_file()} == items


def test_a_directory_that_a_delete_emptied_is_not_listed_and_hinders_nothing(local: Any, tmp_path: Path) -> None:
    local["a/b/c"] = b"1"
    del local["a/b/c"]
    assert (local.listdir(), list(local), local.getsize("a")) == ([], [], 0)
    local["a/b/d"] = b"2"
    assert dict(local) == {"a/b/d": b"2"}
    for conflict in ("a", "a/b", "a/b/d/e"):
        with pytest.raises(ConflictError):
            local[conflict] = b"3"
    assert dict(local) == {"a/b/d": b"2"}


@pytest.mark.parametrize("batch", [False, True])
def test_a_value_takes_the_place_of_a_directory_that_holds_only_empty_directories(
    local: Any, tmp_path: Path, batch: bool
) -> None:
    root = tmp_path / "root"
    (root / "a/b").mkdir(parents=True)
    (root / "f/c/d").mkdir(parents=True)
    (root / "f/e").mkdir()
    assert ("f" in local, local.get("a/b"), list(local)) == (False, None, [])
    if batch:
        local.setitems({"a/b": b"1", "f": b"2"})
    else:
        local["a/b"], local["f"] = b"1", b"2"
    assert dict(local) == {"a/b": b"1", "f": b"2"}


def test_a_directory_that_holds_anything_stays_where_a_value_is_refused(local: Any, tmp_path: Path) -> None:
    inside = tmp_path / "root/f/c/file"
    inside.parent.mkdir(parents=True)
    inside.write_bytes(b"1")
    for key in ("f", "f/c"):
        with pytest.raises(ConflictError):
            local[key] = b"2"
    assert inside.read_bytes() == b"1"


class Between:
    """An operator with `write` or `delete` of its own."""

    def __init__(self, operator: Any, **methods: Any) -> None:
        self.operator = operator
        self.__dict__.update(methods)

    def __repr__(self) -> str:
        return repr(self.operator)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.operator, name)


def test_a_value_in_the_place_of_a_directory_that_a_delete_emptied_stays(tmp_path: Path) -> None:
    """OpenDAL's `delete` of a directory's name deletes a file of that name."""
    operator = opendal.Operator("fs", root=str(tmp_path))

    def delete(key: str) -> None:
        operator.delete(key)
        (tmp_path / "a").rmdir()
        (tmp_path / "a").write_bytes(b"another's")

    store = OpenDALStore(Between(operator, delete=delete))
    store["a/b"] = b"1"
    del store["a/b"]
    assert dict(store) == {"a": b"another's"}


@pytest.mark.parametrize("name", ["root", 'a "name"'])
def test_a_write_that_fails_leaves_the_old_value(tmp_path: Path, name: str) -> None:
    operator = opendal.Operator("fs", root=str(tmp_path / name))
    store = OpenDALStore(operator)
    store["a/b"] = b"old"

    def write(key: str, value: bytes) -> None:
        raise OSError(errno.ENOSPC, "no space")

    failing = OpenDALStore(Between(operator, write=write))
    with pytest.raises(OSError, match="no space"):
        failing["a/b"] = b"new"
    assert dict(store) == {"a/b": b"old"}
    del store["a/b"]
    assert dict(store) == {}


def test_directories_and_what_lies_below_a_value_are_absent(local: Any) -> None:
    local["a/b"] = b"1"
    for key in ("a", "a/b/c", "absent", "x" * 300):
        assert key not in local
        assert local.get(key) is None
        with pytest.raises(KeyError):
            del local[key]
    local.delitems(["a", "a/b/c", "absent"])
    assert dict(local.items()) == {"a/b": b"1"}


def test_ranges_are_clipped_where_the_libraries_raise(local: Any) -> None:
    local["v"] = b"0123456789"
    local["e"] = b""
    assert local.getrange("v", 5, 99) == b"56789"
    assert local.getrange("v", 99, 100) == local.getrange("v", 99) == local.getrange("v", 10) == b""
    assert local.getrange("v", 3, 3) == b""
    assert local.getsuffix("v", 99) == b"0123456789"
    assert local.getsuffix("v", 0) == b""
    assert local.getsuffix("e", 5) == local.getrange("e", 0, 5) == local.getrange("e", 0) == b""
    for absent in (lambda: local.getrange("absent", 3, 3), lambda: local.getrange("absent", 3)):
        with pytest.raises(KeyError):
            absent()
    with pytest.raises(KeyError):
        local.getsuffix("absent", 0)


def test_a_name_of_a_temporary_file_of_obstore_is_refused_or_kept(tmp_path: Path) -> None:
    store = ObstoreStore(obstore.store.LocalStore(tmp_path))
    with pytest.raises(InvalidKeyError, match="obstore cannot hold it"):
        store["a#1"] = b"1"
    assert ("a#1" in store, list(store)) == (False, [])
    store["a#b"] = b"2"
    assert dict(store) == {"a#b": b"2"}


def test_a_store_from_a_url_comes_back_from_a_pickle_with_its_options(tmp_path: Path) -> None:
    store = OpenDALStore.from_url("fs:///", root=str(tmp_path))
    store["a"] = b"1"
    assert pickle.loads(pickle.dumps(store))["a"] == b"1"
    assert os.listdir(tmp_path) == ["a"]
    local = ObstoreStore.from_url(tmp_path.as_uri())
    assert dict(pickle.loads(pickle.dumps(local))) == {"a": b"1"}


def test_options_that_a_library_does_not_take_are_named_and_their_values_are_not() -> None:
    # A panic of obstore's core is no Exception, and went past every handler.
    for options in ({"allow_http": "secret"}, {"foo": "secret"}):
        words = f"obstore cannot open 's3://bucket/x' with the options {next(iter(options))}: "
        with pytest.raises(ValueError, match=words):
            ObstoreStore.from_url("s3://bucket/x", **options)
    with pytest.raises(ValueError, match="obstore cannot open 'foo://bucket/x") as raised:
        ObstoreStore.from_url("foo://bucket/x?sig=secret")
    assert "secret" not in str(raised.value)
    with pytest.raises(ValueError, match="OpenDAL cannot open 'foo://bucket/x' with the options region"):
        OpenDALStore.from_url("foo://bucket/x", region="secret")
    OpenDALStore.from_url("s3://bucket/x", region=object())
    OpenDALStore.from_url("s3://bucket/x", region="us-east-1", enable_virtual_host_style=True, delete_max_size=10)


def test_a_dead_server_is_never_an_absent_key() -> None:
    retry = {"max_retries": 0, "retry_timeout": datetime.timedelta(seconds=1)}
    dead = obstore.store.HTTPStore("http://127.0.0.1:9/", client_options={"allow_http": True}, retry_config=retry)
    for store in (ObstoreStore(dead), OpenDALStore(opendal.Operator("http", endpoint="http://127.0.0.1:9"))):
        for read in (lambda: store["a"], lambda: "a" in store, lambda: store.getrange("a", 0, 1)):  # noqa: B023
            with pytest.raises(StoreReadError):
                read()
