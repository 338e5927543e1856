"""Who is compared: each name with the interpreter that it needs, and how its store is made there."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["MAKERS", "WORKERS", "made"]

#: Which interpreter a contestant runs in. zarrstore, zarr 2 and the bare calls share one, so that it does not decide.
WORKERS = {
    "bare": "zarr2",
    "class": "zarr2",
    "zarrstore": "zarr2",
    "zarrstore nested": "zarr2",
    "zarr 2": "zarr2",
    "zict": "self",
    "diskcache": "self",
    "obstore": "self",
    "tensorstore": "self",
    "zarr 3": "z34",
    "cp": "self",
    "zip": "self",
    "nginx": "self",
    "zarrstore serve": "self",
    "zarrstore fsspec": "self",
    "zarrstore obstore": "self",
    "aws s3 sync": "self",
    "rclone": "self",
    "s5cmd": "self",
}


class Bare:
    """The system calls that an atomic set, a get and so on cannot do without."""

    def __init__(self, root: str) -> None:
        self.root = root + "/"
        self._parents: set[str] = set()

    def __setitem__(self, key: str, value: Any) -> None:
        path = self.root + key
        parent = path.rpartition("/")[0]
        if parent not in self._parents:
            os.makedirs(parent, exist_ok=True)
            self._parents.add(parent)
        fd = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        os.write(fd, value)
        os.close(fd)
        os.replace(path + ".new", path)

    def __getitem__(self, key: str) -> bytes:
        fd = os.open(self.root + key, os.O_RDONLY)
        value = os.read(fd, 70_000)
        if len(value) == 70_000:
            value = os.pread(fd, os.fstat(fd).st_size, 0)
        os.close(fd)
        return value

    def __contains__(self, key: object) -> bool:
        try:
            os.stat(f"{self.root}{key}")
        except OSError:
            return False
        return True

    def __delitem__(self, key: str) -> None:
        os.unlink(self.root + key)

    def __iter__(self) -> Iterator[str]:
        for folder, _, names in os.walk(self.root):
            at = folder[len(self.root) :]
            yield from (f"{at}/{name}" for name in names)


class _Loop:
    """An event loop in a thread, for stores that are asynchronous."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()


class Zarr3:
    """A store of zarr 3 behind blocking calls, as zarr 3's own arrays use it."""

    def __init__(self, store: Any) -> None:
        from zarr.core.buffer import default_buffer_prototype

        self.store, self.loop = store, _Loop()
        self.prototype = default_buffer_prototype()

    def __setitem__(self, key: str, value: Any) -> None:
        self.loop.run(self.store.set(key, self.prototype.buffer.from_bytes(bytes(value))))

    def __getitem__(self, key: str) -> bytes:
        return self.loop.run(self.store.get(key, self.prototype)).to_bytes()

    def __contains__(self, key: object) -> bool:
        return self.loop.run(self.store.exists(key))

    def __delitem__(self, key: str) -> None:
        self.loop.run(self.store.delete(key))

    def __iter__(self) -> Iterator[str]:
        async def every() -> list[str]:
            return [key async for key in self.store.list()]

        return iter(self.loop.run(every()))


class Obstore:
    """An obstore LocalStore, by its own functions."""

    def __init__(self, root: str) -> None:
        import obstore
        from obstore.store import LocalStore

        self.lib, self.store = obstore, LocalStore(root, mkdir=True)

    def __setitem__(self, key: str, value: Any) -> None:
        self.lib.put(self.store, key, bytes(value))

    def __getitem__(self, key: str) -> bytes:
        return bytes(self.lib.get(self.store, key).bytes())

    def __contains__(self, key: object) -> bool:
        try:
            self.lib.head(self.store, key)
        except FileNotFoundError:
            return False
        return True

    def __delitem__(self, key: str) -> None:
        self.lib.delete(self.store, key)

    def __iter__(self) -> Iterator[str]:
        return (entry["path"] for part in self.lib.list(self.store) for entry in part)


class Tensorstore:
    """TensorStore's key-value store of files."""

    def __init__(self, root: str) -> None:
        import tensorstore

        os.makedirs(root, exist_ok=True)
        self.store = tensorstore.KvStore.open({"driver": "file", "path": root + "/"}).result()

    def __setitem__(self, key: str, value: Any) -> None:
        self.store.write(key, bytes(value)).result()

    def __getitem__(self, key: str) -> bytes:
        return self.store.read(key).result().value

    def __contains__(self, key: object) -> bool:
        return self.store.read(key, byte_range=None).result().state == "value"

    def __delitem__(self, key: str) -> None:
        self.store.write(key, None).result()

    def __iter__(self) -> Iterator[str]:
        return (key.decode() for key in self.store.list().result())


class Held:
    """A dict behind the three methods of a Python class: what any mapping written in Python costs at least."""

    def __init__(self) -> None:
        self.root: dict[str, Any] = {}

    def __getitem__(self, key: str) -> Any:
        return self.root[key]

    def __contains__(self, key: object) -> bool:
        return key in self.root

    def __setitem__(self, key: str, value: Any) -> None:
        self.root[key] = value


def _ours(name: str, **options: Any) -> Callable[[str], Any]:
    def store(path: str) -> Any:
        import zarrstore

        return getattr(zarrstore, name)(path, **options)

    return store


def _zarr2(name: str, **options: Any) -> Callable[[str], Any]:
    def store(path: str) -> Any:
        import zarr

        return getattr(zarr, name)(path, **options)

    return store


def _zarr3(name: str, **options: Any) -> Callable[[str], Any]:
    def store(path: str) -> Any:
        import zarr.storage

        return Zarr3(getattr(zarr.storage, name)(Path(path), **options))

    return store


def _zarr3_zip(path: str) -> Any:
    import zarr.storage

    return Zarr3(zarr.storage.ZipStore(path, mode="w"))


def _zict(path: str) -> Any:
    import zict

    return zict.File(path)


def _diskcache(path: str) -> Any:
    import diskcache

    return diskcache.Cache(path, eviction_policy="none")


def _dict(path: str) -> Any:
    return {}


def _held(path: str) -> Any:
    return Held()


def _zarr2_memory(path: str) -> Any:
    import zarr

    return zarr.storage.MemoryStore()


def _ours_memory(path: str) -> Any:
    import zarrstore

    return zarrstore.DictStore()


#: By kind of store and contestant: what makes a store at a path.
MAKERS: dict[str, dict[str, Callable[[str], Any]]] = {
    "directory": {
        "bare": Bare,
        "zarrstore": _ours("DirectoryStore"),
        "zarrstore nested": _ours("NestedDirectoryStore"),
        "zarr 2": _zarr2("DirectoryStore"),
        "zarr 3": _zarr3("LocalStore"),
        "zict": _zict,
        "diskcache": _diskcache,
        "obstore": Obstore,
        "tensorstore": Tensorstore,
    },
    "zip": {
        "zarrstore": _ours("ZipStore", mode="w"),
        "zarr 2": _zarr2("ZipStore", mode="w", compression=0),
        "zarr 3": _zarr3_zip,
    },
    "lmdb": {"zarrstore": _ours("LMDBStore"), "zarr 2": _zarr2("LMDBStore", buffers=False)},
    "lmdb without sync": {"zarrstore": _ours("LMDBStore", sync=False), "zarr 2": _zarr2("LMDBStore", buffers=False)},
    "sqlite": {"zarrstore": _ours("SQLiteStore"), "zarr 2": _zarr2("SQLiteStore")},
    "memory": {"bare": _dict, "class": _held, "zarrstore": _ours_memory, "zarr 2": _zarr2_memory},
}


@contextmanager
def made(kind: str, contestant: str, path: str) -> Iterator[Any]:
    """Give an empty store of a kind, as `contestant` makes it, and close it."""
    store = MAKERS[kind][contestant](path)
    try:
        yield store
    finally:
        getattr(store, "close", int)()
