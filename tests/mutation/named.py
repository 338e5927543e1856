"""Changes planted by their words: faults that tests once missed, each an order or a check on which data depends."""

from __future__ import annotations

from typing import NamedTuple

from tests.mutation.planting import source_of

__all__ = ["NAMED", "Named"]


class Named(NamedTuple):
    """One fault: in `module` (below ``zarrstore``) the text `old` becomes `new`, and `tests` must notice."""

    title: str
    module: str
    old: str
    new: str
    tests: str

    @property
    def name(self) -> str:
        """What the fault is called in a report."""
        return f"{self.module}: {self.title}"

    @property
    def source(self) -> str:
        """The changed module; AssertionError if the text is not there once."""
        text = source_of(self.module)
        assert text.count(self.old) == 1, f"{self.title}: the text stands there {text.count(self.old)} times"
        return text.replace(self.old, self.new)


_JOURNAL = "tests/tools/test_copy_journal.py"
_COPY = f"tests/tools/test_copy.py {_JOURNAL}"
_MIGRATE = "tests/tools/test_migrate_2to3.py tests/tools/test_migrate_again.py"
_SQLITE = "tests/stores/test_creation.py tests/stores/test_sqlite_values.py tests/stores/test_sqlite.py"
_ZIP = "tests/stores/test_zip_interrupts.py tests/stores/test_zip.py"

NAMED = (
    Named(
        "errors of a batch are dropped",
        "tools.copying",
        "        for key, reason in result.errors.items():\n            self.failed(key, reason)\n",
        "",
        _COPY,
    ),
    Named(
        "two stores travel although one cannot",
        "tools.traffic",
        "return all(flags.thread_safe for flags in capabilities)",
        "return any(flags.thread_safe for flags in capabilities)",
        _COPY,
    ),
    Named(
        "a store that one process may use travels to another",
        "tools.traffic",
        "if not all(flags.process_safe for flags in capabilities):",
        "if not any(flags.process_safe for flags in capabilities):",
        _COPY,
    ),
    Named(
        "a key that failed verify is journalled as done",
        "tools.transfer",
        "            del result.done[key]\n            result.errors[key] = reason\n",
        "            result.errors[key] = reason\n",
        _COPY,
    ),
    Named(
        "a key whose write failed is journalled as done",
        "tools.transfer",
        "                result.done.pop(pair.key, None)\n",
        "",
        _COPY,
    ),
    Named(
        "a recorded key that vanished is not copied again",
        "tools.plan",
        "elif not state.is_there or not state.done:",
        "elif not state.done:",
        _JOURNAL,
    ),
    Named(
        "the journal is deleted in spite of errors",
        "tools.copyjob",
        "if copying.journal is not None and not copying.errors:",
        "if copying.journal is not None:",
        _JOURNAL,
    ),
    Named(
        "the journal is ahead of the destination's flush",
        "tools.copying",
        "        if not flushed:\n            self.dest.flush()\n        self.journal.record(self._unrecorded)\n",
        "        self.journal.record(self._unrecorded)\n        if not flushed:\n            self.dest.flush()\n",
        _JOURNAL,
    ),
    Named(
        "a copy ends without a flush",
        "tools.copying",
        "            self.dest.flush()\n            if not self.errors:\n",
        "            if not self.errors:\n",
        _COPY,
    ),
    Named(
        "the journal's last line may be torn",
        "tools.journal",
        '    if not line.endswith(b"\\n") or checksum',
        "    if checksum",
        _JOURNAL,
    ),
    Named(
        "what a crash left of a last line is not cut off",
        "tools.journal",
        "        self._file.truncate(self._whole)\n",
        "        pass\n",
        _JOURNAL,
    ),
    Named(
        "a line of the journal may be damaged",
        "tools.journal",
        ' or checksum != b"%08x" % zlib.crc32(text):',
        ":",
        _JOURNAL,
    ),
    Named(
        "version 2 goes before version 3 is flushed",
        "tools.exchange",
        "        store.flush()\n        for part in _levels(removed):\n",
        "        for part in _levels(removed):\n",
        _MIGRATE,
    ),
    Named(
        "version 1 goes before version 2 is flushed",
        "tools.migrate_1to2",
        "    store.flush()\n    # `meta` last",
        "    # `meta` last",
        "tests/tools/test_migrate_1to2.py",
    ),
    Named(
        "the overlay empties upper before lower is flushed",
        "wrappers.overlay",
        "        self.inner._flush()\n        # Marks first",
        "        # Marks first",
        "tests/wrappers/test_overlay_marks.py tests/wrappers/test_overlay.py",
    ),
    Named(
        "the overlay deletes below before upper is flushed",
        "wrappers.overlay",
        "        self.upper._flush()\n        for path in pending.removed_below:\n",
        "        for path in pending.removed_below:\n",
        "tests/wrappers/test_overlay_marks.py tests/wrappers/test_overlay.py",
    ),
    Named(
        "documents are flushed before the chunks",
        "wrappers.split",
        "        self.chunks._flush()\n        self.inner._flush()\n",
        "        self.inner._flush()\n        self.chunks._flush()\n",
        "tests/wrappers/test_split.py",
    ),
    Named(
        "documents are set before the chunks",
        "wrappers.split",
        "        self.chunks._set_many(chunks())\n"
        "        for key, _ in documents:\n            self._refuse_conflicts(key)\n"
        "        self.inner._set_many(documents)\n",
        "        rest = list(chunks())\n        self.inner._set_many(documents)\n        self.chunks._set_many(rest)\n",
        "tests/wrappers/test_split.py",
    ),
    Named(
        "a file is created by a rename, which replaces another's",
        "stores._sync",
        "        os.link(temporary, path)\n",
        "        os.rename(temporary, path)\n",
        _SQLITE,
    ),
    Named(
        "the folder of a new file is not synced",
        "stores._sync",
        "    fsync_folder(folder)\n    return created\n\n\ndef _open_unnamed",
        "    return created\n\n\ndef _open_unnamed",
        _SQLITE,
    ),
    Named(
        "the folder of a new file is not synced, where files have names from the beginning",
        "stores._sync",
        "        release_name(name)\n    fsync_folder(folder)\n",
        "        release_name(name)\n",
        _SQLITE,
    ),
    Named(
        "a transaction of SQLite begins by reading",
        "stores.sqlite.connections",
        'connection.execute("BEGIN IMMEDIATE")',
        'connection.execute("BEGIN")',
        _SQLITE,
    ),
    Named(
        "must_understand is taken for false where it is absent",
        "metadata.v3rules",
        'value.get("must_understand") is False',
        'value.get("must_understand", False) is False',
        "tests/metadata/test_v3.py tests/tools/test_verify_damages.py",
    ),
    Named(
        "must_understand is taken for false where it is absent, in a migration",
        "metadata.v3",
        'document[member].get("must_understand") is False',
        'document[member].get("must_understand", False) is False',
        "tests/metadata/test_v3.py tests/wrappers/test_views.py",
    ),
    Named(
        "an empty range of a missing key is empty",
        "base",
        '        first = _offset("start", start)\n        last = None if stop is None else _offset("stop", stop)\n',
        '        first = _offset("start", start)\n        last = None if stop is None else _offset("stop", stop)\n'
        '        if first == last:\n            return b""\n',
        "tests/test_values.py",
    ),
    Named(
        "the short way of zip is not rolled back",
        "stores.zip.writer",
        "        except BaseException:\n            self._settle_after_error()\n            raise\n\n    def _set_any",
        "        except BaseException:\n            raise\n\n    def _set_any",
        _ZIP,
    ),
)
