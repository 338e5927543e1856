"""Within one service the server copies: one request a value, and none of its bytes comes here."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zarrstore import DirectoryStore, FSStore, PrefixStore, ReadOnlyStore, RetryStore, copy_store
from zarrstore.base import Store
from zarrstore.testing import CountingStore, tree

pytest.importorskip("obstore", reason="needs obstore: pip install zarrstore[obstore]")

from tests.stores.test_fsspec import connected
from tests.stores.test_object_stores import on_s3

KEYS = 12

#: Opens a store at a root of a bucket.
Opener = Callable[..., Any]


@pytest.fixture(scope="module")
def buckets(s3_server: Any) -> Any:
    names = [s3_server.make_bucket(), s3_server.make_bucket()]
    yield names
    for name in names:
        s3_server.drop_bucket(name)


@pytest.fixture(params=["fsspec", "obstore"])
def library(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def opener(library: str, s3_counted: Any, buckets: list[str]) -> Opener:
    server, _ = s3_counted

    def opened(bucket: int = 0, server: Any = server, **options: Any) -> Any:
        root = uuid.uuid4().hex
        if library == "obstore":
            return on_s3("obstore", server, buckets[bucket], root, **options)
        return FSStore(f"s3://{buckets[bucket]}/{root}", **connected(server.storage_options()), **options)

    return opened


def filled(store: Any) -> Any:
    store.setitems({"a/.zarray": b"{}", **{f"a/{n}": b"%d" % n for n in range(KEYS)}})
    return store


def values_sent(proxy: Any) -> int:
    """Return the number of requests that fetched a value: not a listing."""
    return sum(method == "GET" and "list-type" not in path for method, path in proxy.requests)


def test_a_copy_within_a_bucket_is_one_request_a_value(opener: Opener, s3_counted: Any) -> None:
    _, proxy = s3_counted
    source, dest = filled(opener()), opener()
    proxy.reset()
    result = copy_store(ReadOnlyStore(source), dest, dest_path="below/it")
    counts = dict(proxy.counts)
    assert values_sent(proxy) == 0
    assert counts["PUT"] == KEYS + 1
    assert sum(counts.values()) <= KEYS + 1 + 4, counts
    assert proxy.busiest <= 64
    assert result == (KEYS + 1, 0, sum(map(len, source.values())))
    assert {key.removeprefix("below/it/"): value for key, value in dest.items()} == dict(source)


def test_a_copy_between_two_buckets(opener: Opener, s3_counted: Any, library: str) -> None:
    _, proxy = s3_counted
    source, dest = filled(opener()), opener(1)
    proxy.reset()
    copy_store(source, dest)
    # obstore copies within one bucket only.
    assert values_sent(proxy) == (0 if library == "fsspec" else KEYS + 1)
    assert dict(dest) == dict(source)


def test_a_copy_within_one_store(opener: Opener, s3_counted: Any) -> None:
    _, proxy = s3_counted
    store = filled(opener())
    proxy.reset()
    copy_store(store, store, "a", "b")
    assert values_sent(proxy) == 0
    assert store["b/7"] == b"7"
    copy_store(store, store, "b/7", "c")  # a value whose size no listing has told
    assert values_sent(proxy) == 1
    assert store["c"] == b"7"


@pytest.mark.parametrize("wrap", [lambda store: PrefixStore(store, "p"), RetryStore], ids=["prefix", "retry"])
def test_wrappers_that_keep_the_values_do_not_stand_in_the_way(wrap: Any, opener: Opener, s3_counted: Any) -> None:
    _, proxy = s3_counted
    source, dest = filled(wrap(opener())), wrap(opener())
    proxy.reset()
    copy_store(source, dest)
    assert values_sent(proxy) == 0
    assert dict(dest) == dict(source)


def test_where_values_must_be_seen_they_come_here(opener: Opener, s3_counted: Any) -> None:
    _, proxy = s3_counted
    source = filled(opener())
    for options, wrap in (({"verify": True}, None), ({}, CountingStore)):
        dest = opener()
        proxy.reset()
        copy_store(source if wrap is None else wrap(source), dest, **options)
        assert values_sent(proxy) >= KEYS
        assert dict(dest) == dict(source)


def test_other_endpoints_and_identities_are_other_services(opener: Opener, s3_server: Any, library: str) -> None:
    here, there = opener(), opener(server=s3_server)
    assert here._copier(opener()) is not None
    assert here._copier(there) is None
    assert here._copier(object()) is None
    assert here._copier(PrefixStore(there, "a")) is None
    if library == "fsspec":
        assert here._copier(opener(config_kwargs={"signature_version": "s3"})) is None
        assert opener(mode="r")._copier(here) is None


def test_an_endpoint_that_the_environment_named_counts(
    s3_counted: Any, s3_server: Any, buckets: list[str], library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from obstore.store import S3Store

    from zarrstore import ObstoreStore

    server, _ = s3_counted
    stores: list[Store] = []
    for endpoint in (server, server, s3_server):
        for name, value in endpoint.environment().items():
            monkeypatch.setenv(name, value)
        store: Store
        if library == "obstore":
            store = ObstoreStore(S3Store(buckets[0], prefix="x"))
        else:
            store = FSStore(f"s3://{buckets[0]}/x", skip_instance_cache=True)
            assert "absent" not in store  # connects
        stores.append(store)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    assert stores[0]._copier(stores[1]) is not None
    assert stores[0]._copier(stores[2]) is None


def test_what_the_server_refuses_to_copy_is_got_and_set(
    opener: Opener, s3_counted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, proxy = s3_counted
    source, dest = filled(opener()), opener()
    refused = {f"a/{n}" for n in range(3)}
    root = dest.url.rpartition("/")[2] if isinstance(dest, FSStore) else dest.store.prefix
    genuine = proxy._arrived

    def arrived(method: str, path: str) -> Any:
        faults = genuine(method, path)
        with proxy._lock:
            first = proxy.requests.count((method, path)) == 1
        if method == "PUT" and first and path.partition(f"{root}/")[2] in refused:
            from tests.support.servers.proxy import Fault

            return [Fault(lambda method, path: True, status=403)]
        return faults

    monkeypatch.setattr(proxy, "_arrived", arrived)
    proxy.reset()
    assert copy_store(source, dest)[0] == KEYS + 1
    assert values_sent(proxy) == 3
    assert dict(dest) == dict(source)


def test_a_value_that_vanished_is_an_error_of_its_key(opener: Opener) -> None:
    source, dest = filled(opener()), opener()
    entries = list(source._details(""))
    source.delitems(["a/5"])
    source._details = lambda path: entries
    result = copy_store(source, dest, errors="collect")
    assert result.errors["a/5"] == "it vanished while the copy ran"
    assert set(result.errors) == {"a/5", "a/.zarray"}
    assert result.n_copied == KEYS - 1


def test_the_adversarial_tree_arrives_whole(opener: Opener, s3_counted: Any) -> None:
    _, proxy = s3_counted
    source, dest = opener(), opener()
    source.setitems({key: value for key, value in tree().items() if key.isprintable()})
    proxy.reset()
    copy_store(source, dest)
    assert values_sent(proxy) == 0
    assert dict(dest) == dict(source)


def test_names_in_capitals_go_to_their_keys(s3_server: Any, buckets: list[str]) -> None:
    root, options = f"s3://{buckets[0]}/{uuid.uuid4().hex}", s3_server.storage_options()
    source = FSStore(f"{root}/s", **options)
    source["Foo/0.0"] = b"1"
    dest = FSStore(f"{root}/d", normalize_keys=True, **options)
    copy_store(source, dest)
    assert dict(FSStore(f"{root}/d", **options)) == {"foo/0.0": b"1"}


def test_a_store_that_was_pickled_copies_at_the_server_too(opener: Opener, s3_counted: Any, tmp_path: Path) -> None:
    import pickle

    _, proxy = s3_counted
    source, dest = filled(opener()), opener()
    proxy.reset()
    copy_store(pickle.loads(pickle.dumps(source)), pickle.loads(pickle.dumps(dest)))
    assert values_sent(proxy) == 0
    assert dict(dest) == dict(source)


def test_what_is_unchanged_costs_listings_only(opener: Opener, s3_counted: Any, tmp_path: Path) -> None:
    _, proxy = s3_counted
    here, there, beside = DirectoryStore(tmp_path / "here"), opener(), opener()
    filled(here)
    for source, dest in ((here, there), (there, beside), (there, DirectoryStore(tmp_path / "back"))):
        assert copy_store(source, dest, if_exists="differ")[0] == KEYS + 1
        proxy.reset()
        assert copy_store(source, dest, if_exists="differ", delete=True) == (0, KEYS + 1, 0)
        assert set(proxy.counts) == {"GET"}, proxy.requests
        assert values_sent(proxy) == 0
        assert len(proxy.requests) <= 6
        assert dict(dest) == dict(here)
    there["a/3"] = b"other"
    proxy.reset()
    assert copy_store(there, beside, if_exists="differ")[0] == 1
    assert (values_sent(proxy), proxy.counts["PUT"]) == (0, 1)
    assert beside["a/3"] == b"other"
