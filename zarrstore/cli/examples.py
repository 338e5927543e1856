"""What the help says of every verb: a line each, and an example or two; so that no verb is imported for it."""

from __future__ import annotations

__all__ = ["EXAMPLES", "SUMMARIES"]

#: In the order of the help: what shows, what moves, what checks, what destroys, what mends. The first sentence of each.
SUMMARIES = {
    "ls": "List what is immediately below PATH: directories end in '/'.",
    "tree": "Draw the groups and arrays at and below PATH, with shape, dtype and chunks.",
    "info": "What the store is, and what the array or group at PATH is: documents, attributes, chunks and sizes.",
    "head": "Print the first values of the array at PATH; only the chunks that hold them are read.",
    "dump": "Print all values of the array at PATH, and their statistics: smallest, largest, mean, how many are NaN.",
    "map": "Draw the chunk grid of the array at PATH: what is written and missing, and with --decode what is damaged.",
    "attrs": "Print the attributes of the array or group at PATH as JSON, or change some of them.",
    "cat": "Write the bytes of KEY to stdout; with --json, a document laid out for reading.",
    "get": "Write the value of KEY into FILE: by default of the key's last name, here; - is stdout.",
    "find": "Print the keys, arrays or groups whose name or path PATTERN fits: * and ? are anything, [ab] is a or b.",
    "du": "Bytes and keys at and below PATH and its directories, the largest first.",
    "copy": "Copy every key of SOURCE to DEST, documents last.",
    "sync": "Make DEST equal to SOURCE, and write only what differs.",
    "pack": "Put SOURCE, as a rule a directory, into one zip ARCHIVE, documents first.",
    "unpack": "Put every entry of ARCHIVE into the directory DEST.",
    "migrate": "Bring the hierarchy at PATH to the next version of Zarr: documents only, chunks are not touched.",
    "refs": "Reference files (Kerchunk): one small file through which other programs read what lies elsewhere.",
    "consolidate": "Write one document that repeats all documents below PATH, or check the one that is there.",
    "verify": "Look at every key below PATH and print every problem.",
    "repair": "Put right the documents below PATH that are provably wrong: it says what, asks, and then writes.",
    "diff": "Print every key that differs: '<' only in LEFT, '>' only in RIGHT, '!' other bytes.",
    "put": "Set KEY to the content of FILE; - is stdin.",
    "mv": "Move the node or key SOURCE to DEST, where nothing may be, within TARGET; consolidated metadata stays true.",
    "rm": "Delete the key at PATH and everything below it, and nothing beside it; '/' empties TARGET.",
    "clean": "Delete junk (.DS_Store, ._*, Thumbs.db …) and what writers that were killed left behind.",
    "compact": "Give back the free space of a zip, LMDB or SQLite TARGET.",
    "recover": "Keep every whole entry of a damaged zip ARCHIVE, in place or in a new archive DEST.",
    "cache": "The second tier of LRUStoreCache, which outlives the process: look, fill, empty.",
    "serve": "Let browsers and programs read TARGETs by HTTP: one at /, several each below its name.",
    "completion": 'Print the completion script of a shell: eval "$(zarrstore completion bash)".',
}

EXAMPLES = {
    "ls": ("zarrstore ls data.zarr ocean -lh --sort size", "zarrstore ls -r s3://bucket/data.zarr"),
    "tree": ("zarrstore tree data.zarr", "zarrstore tree old.lmdb ocean -L 2"),
    "info": ("zarrstore info data.zip", "zarrstore info data.zarr ocean/temperature"),
    "cat": ("zarrstore cat data.zarr ocean/.zattrs --json",),
    "du": ("zarrstore du data.zarr", "zarrstore du data.zarr --plot sizes.png"),
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
    "verify": ("zarrstore verify data.zarr", "zarrstore verify data.zip --report report.html"),
    "repair": ("zarrstore repair data.zarr --dry-run",),
    "diff": ("zarrstore diff data.zarr s3://bucket/data.zarr",),
    "mv": ("zarrstore mv data.zarr ocean/temp ocean/temperature",),
    "rm": ("zarrstore rm data.zarr ocean/old --dry-run",),
    "clean": ("zarrstore clean data.zarr --dry-run",),
    "compact": ("zarrstore compact data.zip", "zarrstore compact data.lmdb"),
    "recover": ("zarrstore recover damaged.zip whole.zip",),
    "cache": ("zarrstore cache warm s3://bucket/data.zarr cache.zarr --size 2e9", "zarrstore cache stats cache.zarr"),
    "completion": ('eval "$(zarrstore completion bash)"', "zarrstore completion fish | source"),
    "serve": ("zarrstore serve data.zarr", "zarrstore serve old.lmdb --as v3 --port 9000"),
}
