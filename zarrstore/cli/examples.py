"""An example or two of every verb, for its ``--help``."""

from __future__ import annotations

__all__ = ["EXAMPLES"]

EXAMPLES = {
    "ls": ("zarrstore ls data.zarr ocean -lh --sort size", "zarrstore ls -r s3://bucket/data.zarr"),
    "tree": ("zarrstore tree data.zarr", "zarrstore tree old.lmdb ocean -L 2"),
    "info": ("zarrstore info data.zip", "zarrstore info data.zarr ocean/temperature"),
    "cat": ("zarrstore cat data.zarr ocean/.zattrs --json",),
    "du": ("zarrstore du data.zarr", "zarrstore du -s s3://bucket/data.zarr ocean"),
    "map": (
        "zarrstore map data.zarr ocean/temperature",
        "zarrstore map data.zarr ocean/temperature --decode -o map.png",
    ),
    "copy": ("zarrstore copy data.zarr data.zip", "zarrstore copy s3://bucket/data.zarr here.db --resume copy.journal"),
    "sync": ("zarrstore sync data.zarr s3://bucket/data.zarr --delete --dry-run",),
    "pack": ("zarrstore pack data.zarr data.zip --verify",),
    "unpack": ("zarrstore unpack data.zip data.zarr",),
    "refs": ("zarrstore refs write s3://bucket/data.zarr refs.json",),
    "migrate": ("zarrstore migrate data.zarr --dry-run", "zarrstore migrate --help"),
    "consolidate": ("zarrstore consolidate data.zarr",),
    "verify": ("zarrstore verify data.zarr", "zarrstore verify data.zip --write-manifest sums.txt"),
    "repair": ("zarrstore repair data.zarr --dry-run",),
    "diff": ("zarrstore diff data.zarr s3://bucket/data.zarr",),
    "mv": ("zarrstore mv data.zarr ocean/temp ocean/temperature",),
    "rm": ("zarrstore rm data.zarr ocean/old --dry-run",),
    "clean": ("zarrstore clean data.zarr --dry-run",),
    "repack": ("zarrstore repack data.zip",),
    "compact": ("zarrstore compact data.lmdb",),
    "recover": ("zarrstore recover damaged.zip whole.zip",),
    "cache": ("zarrstore cache warm s3://bucket/data.zarr cache.zarr --size 2e9", "zarrstore cache stats cache.zarr"),
    "completion": ('eval "$(zarrstore completion bash)"', "zarrstore completion fish | source"),
    "serve": ("zarrstore serve data.zarr", "zarrstore serve old.lmdb --as v3 --port 9000"),
}
