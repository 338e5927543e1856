"""A store of your own: a tar archive in four driver methods. The suite of all stores runs over it in the tests."""

from __future__ import annotations

import os
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path

import zarrstore
from zarrstore import keys
from zarrstore.refuse import RefuseWrites


class TarStore(RefuseWrites):
    """The regular files of an uncompressed tar archive; of two with one name, the last. Threads and processes: safe."""

    capabilities = zarrstore.Capabilities(writable=False, erasable=False, ranged=True, process_safe=True)

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(path)
        with tarfile.open(self.path, "r:") as archive:  # its names are judged: others may have written them
            files = (entry for entry in archive if entry.isfile() and keys.is_key(entry.name))
            self._places = {entry.name: (entry.offset_data, entry.size) for entry in files}

    def _get(self, key: str) -> bytes:
        return self._get_range(key, 0, None)

    def _get_range(self, key: str, start: int, stop: int | None) -> bytes:
        offset, size = self._places[key]
        with open(self.path, "rb") as file:
            file.seek(offset + min(start, size))
            return file.read(max(0, min(size, size if stop is None else stop) - min(start, size)))

    def _contains(self, key: str) -> bool:
        return key in self._places

    def _keys(self, path: str) -> Iterable[str]:
        return [key for key in self._places if keys.is_below(key, path)]


def main() -> None:
    """Write an archive by Python's own module, and read it as a hierarchy."""
    data = {"depth/0": bytes([1, 0, 2, 0])}
    zarrstore.init_array(data, shape=4, chunks=2, dtype="<i2", compressor=None, path="depth")
    with tempfile.TemporaryDirectory() as folder:
        zarrstore.copy_store(data, folder)
        with tarfile.open(Path(folder, "a.tar"), "w") as archive:
            for name in data:
                archive.add(Path(folder, name), name)
        store = TarStore(Path(folder, "a.tar"))
        print(zarrstore.tree(store))
        assert zarrstore.read_array(store, "depth").tolist() == [1, 2, 0, 0]
        assert zarrstore.copy_store(store, {})[0] == len(data)


if __name__ == "__main__":
    main()
