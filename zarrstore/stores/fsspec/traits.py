"""What is true of a filesystem of fsspec, by its protocols: what it refuses, lists and promises."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from zarrstore.base import Capabilities
from zarrstore.stores.fsspec import filesystems

__all__ = ["S3", "WEB", "Traits", "traits_of"]

#: Protocols of object stores, where a value may stand beside a directory of its name, and directories need no making.
_FLAT = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci", "obs", "cos", "tos"})
S3 = frozenset({"s3", "s3a"})
WEB = frozenset({"http", "https"})
#: Protocols whose deletion of a file refuses a directory, and whose deletion of a directory refuses one that is not
#: empty. Elsewhere (WebDAV, pyarrow's) either may erase all that is below.
_CAREFUL = frozenset({"file", "local", "memory", "sftp", "ssh", "ftp", "smb"})
#: Of these, those that refuse a value on a directory and below a value: memory does not.
_REFUSING = _CAREFUL - {"memory"}
#: Protocols with one connection, on which one command runs at a time.
_ONE_AT_A_TIME = frozenset({"ftp"})
#: Protocols whose library takes the end of a connection for the end of a value.
_UNPROVED = frozenset({"webdav", "dav"})


@dataclass(frozen=True, slots=True)
class Traits:
    """What is true of one filesystem.

    Parameters
    ----------
    protocols : frozenset of str
        Its outermost protocol, under all its names.
    flat : bool
        An object store: a value may stand beside a directory of its name, and directories need no making.
    local : bool
        Its paths are those of the operating system.
    remote : bool
        Requests overlap, and a value is set whole.
    careful : bool
        Deleting a file refuses a directory, and deleting a directory refuses one that is not empty.
    refuses : bool
        A value that would stand on a directory, or below a value, is refused without a look before each set.
    serial : bool
        Its calls come one at a time, because it has one connection or because a set writes in place.
    counts_from_the_end : bool
        A part of a value can be asked for by its distance from the end.
    unproved : bool
        What is read is compared with the size of the value, since the library does not.
    keeps_copies : bool
        It keeps copies of another's files.
    unsafe : re.Pattern or None
        What in a key makes it take the key for another.
    capabilities : Capabilities
        Of a store on it.
    """

    protocols: frozenset[str]
    flat: bool
    local: bool
    remote: bool
    careful: bool
    refuses: bool
    serial: bool
    counts_from_the_end: bool
    unproved: bool
    keeps_copies: bool
    unsafe: re.Pattern[str] | None
    capabilities: Capabilities


def traits_of(fs: Any, mode: str) -> Traits:
    """Return what is true of a filesystem for a store that is opened with `mode`."""
    known = filesystems.protocols(fs)
    is_cache = filesystems.is_cache(fs)
    is_foreign = filesystems.wraps_foreign(fs)
    is_web = not known.isdisjoint(WEB)
    flat = not known.isdisjoint(_FLAT)
    remote = bool(getattr(fs, "async_impl", False)) and not is_cache
    is_plain = known <= {"file", "local", "memory", "dir"}
    is_whole = flat or remote or (is_plain and not is_foreign)
    is_writable = mode != "r" and not is_web and not is_cache
    return Traits(
        protocols=frozenset(filesystems.names(fs)),
        flat=flat,
        local="file" in filesystems.names(fs),
        remote=remote,
        careful=not known.isdisjoint(_CAREFUL) and known <= _CAREFUL | {"dir"} and not is_foreign,
        refuses=known <= _REFUSING and not is_foreign,
        # Where a set writes in place, a reader in another thread could see half of it.
        serial=not known.isdisjoint(_ONE_AT_A_TIME) or not (is_whole or mode == "r"),
        # SFTP's files do not know where they end.
        counts_from_the_end=remote or is_plain,
        unproved=not known.isdisjoint(_UNPROVED),
        keeps_copies=is_cache,
        unsafe=filesystems.unsafe_names(fs),
        capabilities=Capabilities(
            writable=is_writable,
            erasable=is_writable,
            listable=not is_web,
            hierarchical=not (flat or is_web),
            ranged=remote or not (is_web or is_foreign),  # pyarrow's files are streams
            concurrent=remote,
            process_safe="memory" not in known and not is_cache,
        ),
    )
