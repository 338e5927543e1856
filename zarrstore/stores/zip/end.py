"""The end of a zip archive, and the bytes of its directory: found from the last bytes of the file."""

from __future__ import annotations

from typing import NamedTuple

from zarrstore.stores.zip import format as fmt
from zarrstore.stores.zip.file import File, read_fully

__all__ = ["End", "NotAnArchiveError", "find_end"]

#: The end may be followed by a comment of 65,535 bytes.
_TAIL = fmt.LONGEST_END + 0xFFFF


class NotAnArchiveError(Exception):
    """The file does not end as an archive does. Callers who know the way out turn it into DamagedStoreError."""


class End(NamedTuple):
    """Where the directory is.

    `start` and `size` are of its bytes in the file, `entries` is the number of records it claims, `shift` the length of
    what was put before the archive (to be added to every place that a record names), `stop` where the archive ends,
    `comment` what follows it, `is_zip64` whether it ends in that format.
    """

    start: int
    size: int
    entries: int
    shift: int
    stop: int
    comment: bytes = b""
    is_zip64: bool = False


def find_end(file: File, length: int, tail_size: int = _TAIL) -> tuple[End, bytes]:
    """Return the end of the archive and the bytes of its directory; NotAnArchiveError if there is none.

    Parameters
    ----------
    file : File
        The file.
    length : int, bytes
        Where it ends; less than its length to see an archive as it was when it ended there.
    tail_size : int, bytes
        How much is read first. What of the directory is not in it takes a second read.

    Notes
    -----
    An end counts only if a directory is where it says. Bytes behind it are passed over, as zipfile does, unless an
    entry begins among them: then a writer was interrupted, and values that it acknowledged must not vanish.
    """
    tail_start = max(0, length - max(tail_size, _TAIL))
    tail = read_fully(file, length - tail_start, tail_start)
    lowest = max(0, len(tail) - _TAIL)
    at = len(tail)
    reason = "is not a zip archive that ends properly"
    while (at := tail.rfind(fmt.END, lowest, at + 3 if at < len(tail) else at)) >= 0:
        end = _end_at(tail, at, tail_start)
        if end is not None:
            directory = _directory_bytes(file, end, tail, tail_start)
            if directory is not None:
                if fmt.LOCAL in tail[end.stop - tail_start :]:
                    raise NotAnArchiveError("was not closed: entries follow its last directory")
                if end.shift and read_fully(file, 4, 0) == fmt.LOCAL:
                    # The last value may be an archive itself, whose end is the end of the file; or the comment has one.
                    reason = "was not closed: its end belongs to an archive within it"
                    continue
                return end, directory
    if not length:
        raise NotAnArchiveError("is empty")
    raise NotAnArchiveError(reason)


def _end_at(tail: bytes, at: int, tail_start: int) -> End | None:
    if at + fmt.END_SIZE > len(tail):
        return None
    _, disk, its_disk, _, count, size, offset, comment = fmt.END_FIELDS.unpack_from(tail, at)
    place = tail_start + at
    stop = place + fmt.END_SIZE + comment
    if stop > tail_start + len(tail):
        return None
    directory_end = place
    is_zip64 = False
    wide = at - fmt.LOCATOR_FIELDS.size - fmt.END64_FIELDS.size
    if wide >= 0 and tail.startswith(fmt.LOCATOR64, at - fmt.LOCATOR_FIELDS.size) and tail.startswith(fmt.END64, wide):
        *_, disk, its_disk, _, count, size, offset = fmt.END64_FIELDS.unpack_from(tail, wide)
        directory_end, is_zip64 = tail_start + wide, True
    if (disk or its_disk) and disk != fmt.MOST_ENTRIES:
        raise NotAnArchiveError("is one part of an archive that is split over several files")
    start = directory_end - size
    if start < 0 or start - offset < 0:
        return None
    written = tail[at + fmt.END_SIZE : stop - tail_start]
    return End(start, size, count, start - offset, stop, written, is_zip64)


def _directory_bytes(file: File, end: End, tail: bytes, tail_start: int) -> bytes | None:
    if end.start >= tail_start:
        directory = tail[end.start - tail_start : end.start - tail_start + end.size]
    else:  # only the part that was not read yet
        missing = min(end.size, tail_start - end.start)
        directory = read_fully(file, missing, end.start) + tail[: end.size - missing]
    if len(directory) != end.size:
        return None
    whole = directory.startswith(fmt.CENTRAL) if end.size else not end.entries
    return directory if whole else None
