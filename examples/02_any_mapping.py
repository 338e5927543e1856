"""Every verb works over any mapping: a dict, a store of ours, a class of your own with nothing but the five methods.

Run it: ``python examples/02_any_mapping.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping

import zarrstore


class Shelf(MutableMapping[str, bytes]):
    """The least a mapping can be, and it counts how often it is asked."""

    def __init__(self) -> None:
        self.items_: dict[str, bytes] = {}
        self.asked = 0

    def __getitem__(self, key: str) -> bytes:
        self.asked += 1
        return self.items_[key]

    def __setitem__(self, key: str, value: bytes) -> None:
        self.items_[key] = value

    def __delitem__(self, key: str) -> None:
        del self.items_[key]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self.items_))

    def __len__(self) -> int:
        return len(self.items_)


def main() -> None:
    """Fill each kind of mapping through the same functions, and see the same hierarchy in each."""
    drawings = set()
    for mapping in ({}, zarrstore.DictStore(), Shelf()):
        zarrstore.init_array(mapping, shape=(4, 6), chunks=(2, 3), dtype="<i2", compressor=None, path="survey/depth")
        zarrstore.setitems(mapping, {f"survey/depth/{i}.{j}": bytes(12) for i in range(2) for j in range(2)})
        zarrstore.rename(mapping, "survey", "archive/2026")
        drawings.add(str(zarrstore.tree(mapping)))
        values = zarrstore.read_array(mapping, "archive/2026/depth")
        size = zarrstore.getsize(mapping, "archive/2026/depth")
        print(f"{type(mapping).__name__:10} {size:5} bytes, {values.shape} {values.dtype}")
        assert zarrstore.verify(mapping, missing="all", path="archive/2026/depth")
    print(*drawings, sep="\n")
    assert len(drawings) == 1


if __name__ == "__main__":
    main()
