"""Write the screens of the manual: what each verb prints over the data of the tests, in this folder as ``VERB.txt``.

::

    python docs/screens/make.py

A test compares what this makes with what is here.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
DATA = HERE.parent.parent / "tests" / "data"

#: For each verb what is typed, in a folder that `furnish` fills; the order matters, since verbs change what is there.
SCREENS: dict[str, tuple[str, ...]] = {
    "ls": ("zarrstore ls legacy.zarr ocean", "zarrstore ls legacy.zip ocean/surface/time -lh --sort size"),
    "tree": ("zarrstore tree legacy.zarr",),
    "info": ("zarrstore info legacy.zarr ocean/surface/temperature",),
    "head": ("zarrstore head legacy.lmdb ocean/surface/temperature -n 2",),
    "dump": ("zarrstore dump legacy.zarr ocean/deep/packed --statistics",),
    "map": ("zarrstore map legacy.zarr sparse", "zarrstore map damaged.zarr sparse --decode"),
    "attrs": ("zarrstore attrs legacy.zarr ocean/surface/temperature",),
    "cat": ("zarrstore cat legacy.zarr scalar/.zarray --json",),
    "get": ("zarrstore get legacy.zarr scalar/0 chunk.bin",),
    "find": (
        "zarrstore find legacy.zarr 's*' --type array",
        "zarrstore find legacy.zarr '*.zattrs' --path ocean/surface",
    ),
    "du": ("zarrstore du legacy.zarr -d 2", "zarrstore du legacy.zarr --plot sizes.png --summary"),
    "copy": (
        "zarrstore copy legacy.zarr copy.db --verify",
        "zarrstore copy legacy.zarr copy.db --if-exists skip",
    ),
    "sync": (
        "zarrstore sync legacy.zarr mirror.zarr",
        "zarrstore put mirror.zarr scalar/0 other.bin --overwrite",
        "zarrstore sync legacy.zarr mirror.zarr",
    ),
    "pack": ("zarrstore pack legacy.zarr packed.zip --verify",),
    "unpack": ("zarrstore unpack packed.zip unpacked.zarr",),
    "migrate": ("zarrstore migrate copy.db stations --dry-run", "zarrstore migrate copy.db ocean/deep/raw"),
    "refs": ("zarrstore refs write legacy.zarr refs.json", "zarrstore ls refs.json"),
    "consolidate": ("zarrstore consolidate mirror.zarr", "zarrstore consolidate mirror.zarr --check"),
    "verify": ("zarrstore verify legacy.zarr", "zarrstore verify damaged.zarr --report report.html"),
    "repair": ("zarrstore repair old.zarr --dry-run",),
    "diff": ("zarrstore diff legacy.zarr damaged.zarr",),
    "put": ("zarrstore put mirror.zarr notes.txt chunk.bin", "zarrstore put mirror.zarr notes.txt chunk.bin"),
    "mv": ("zarrstore mv mirror.zarr ocean/surface ocean/top", "zarrstore ls mirror.zarr ocean"),
    "rm": ("zarrstore rm mirror.zarr ocean/tpo --yes", "zarrstore rm mirror.zarr scalar --yes"),
    "clean": ("zarrstore clean damaged.zarr --dry-run",),
    "compact": ("zarrstore compact dead.zip",),
    "recover": ("zarrstore ls cut.zip", "zarrstore recover cut.zip whole.zip"),
    "cache": ("zarrstore cache warm legacy.zip tier --size 1e9", "zarrstore cache stats tier"),
}

#: What a verb says while it works; how often depends on the machine.
_PROGRESS = re.compile(r"^\w+: [\d,]+ of [\d,]+, .*\n", re.MULTILINE)


def furnish(folder: Path) -> None:
    """Put into a folder what the commands read."""
    from zarrstore import DirectoryStore, ZipStore, init_array

    shutil.copytree(DATA / "v2" / "legacy.zarr", folder / "legacy.zarr")
    shutil.copytree(DATA / "v2" / "legacy.zarr", folder / "damaged.zarr")
    shutil.copytree(DATA / "v2" / "legacy.lmdb", folder / "legacy.lmdb")
    shutil.copy(DATA / "v2" / "legacy.zip", folder / "legacy.zip")
    damaged = DirectoryStore(folder / "damaged.zarr")
    (chunk,) = [key for key in damaged if key.startswith("sparse/") and key[7].isdigit()]
    damaged.update({chunk: b"junk", "ocean/surface/temperature/2.1.0": b"junk"})
    (folder / "damaged.zarr" / ".DS_Store").write_bytes(b"")
    with ZipStore(folder / "dead.zip", mode="w") as dead:
        dead.update({"a": bytes(100_000), "b": b"1"})
    with ZipStore(folder / "dead.zip", mode="r+", compact=False) as dead:
        dead["a"] = b"1"
    old: dict[str, bytes] = {}
    init_array(old, shape=(4, 4), chunks=(2, 2), dtype="<i4", path="a", compressor=None)
    old["a/0/1"] = bytes(16)  # as zarr 2.0 to 2.7 wrote it, and as no reader of today finds it
    DirectoryStore(folder / "old.zarr").update(old)
    (folder / "other.bin").write_bytes(b"12345678")
    (folder / "cut.zip").write_bytes((folder / "legacy.zip").read_bytes()[:-300])


def screens() -> Iterator[tuple[str, str]]:
    """Yield each verb with its screen, made now, in a folder of its own."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        furnish(Path(name))
        os.chdir(name)
        try:
            for verb, lines in SCREENS.items():
                text = "".join(map(_screen, lines))
                yield verb, text.replace(f"{Path.cwd()}{os.sep}", "")
        finally:
            os.chdir(before)


def _screen(line: str) -> str:
    from zarrstore.cli.group import run

    # Of bytes, since `cat` writes such.
    shown = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
        code = run(shlex.split(line)[1:])
    text = _PROGRESS.sub("", shown.buffer.getvalue().decode())  # type: ignore[attr-defined]
    text = "".join(f"{part.rstrip()}\n" for part in text.splitlines())
    return f"$ {line}\n{text}" + (f"(exit {code})\n" if code else "")


def main() -> None:
    """Write the screens, and remove those of verbs that are no more."""
    for verb, text in screens():
        (HERE / f"{verb}.txt").write_text(text, encoding="utf-8")
    for path in HERE.glob("*.txt"):
        if path.stem not in SCREENS:
            path.unlink()


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent.parent))
    main()
