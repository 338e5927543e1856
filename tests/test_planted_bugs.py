"""Bugs that other stores really have, planted in ours: the suite must find each."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

#: Nothing but the suite: plugins that it does not need cost more than its checks.
PLUGINS = ("cacheprovider", "zarr", "anyio", "xdist", "asyncio")
PLAIN = [argument for name in PLUGINS for argument in ("-p", f"no:{name}")] + ["--tb=no"]

PRELUDE = """
import dataclasses
from zarrstore import DictStore, Store
from zarrstore import base, keys
from zarrstore.errors import ReadOnlyError
from zarrstore.testing import StoreConformance
from zarrstore.wrappers.base import Wrapper
"""

BUGS = {
    "lstrip instead of slicing in rename": """
class Bad(DictStore):
    def _rename(self, source, destination):
        for key in [key for key in self.root if key == source or key.startswith(source + "/")]:
            self.root[destination + "/" + key.lstrip(source + "/")] = self.root.pop(key)
""",
    "a prefix without its slash": """
class Bad(DictStore):
    def _keys(self, path):
        return [key for key in list(self.root) if key.startswith(path)]
""",
    "'..' admitted": """
class Bad(DictStore):
    def __contains__(self, key):
        return key in self.root
    def __getitem__(self, key):
        return self.root[key]
    def __setitem__(self, key, value):
        self.root[key] = bytes(value)
""",
    "a wrapper that forgets to forward": """
class Forgetful(Wrapper):
    _listdir = Store._listdir
    _get_many = Store._get_many
def Bad():
    return Forgetful(DictStore())
""",
    "a read-only wrapper that forgets a write method": """
class AlmostReadOnly(Wrapper):
    def __init__(self, inner):
        super().__init__(inner)
        self.capabilities = dataclasses.replace(self.inner.capabilities, writable=False, erasable=False)
    def _refuse(self, *args):
        raise ReadOnlyError("it", self)
    _set = _delete = _set_many = _delete_many = _rmdir = _clear = _refuse  # and no _rename
def Bad(items=()):
    return AlmostReadOnly(DictStore(dict(items)))
def fill(self, tmp_path, items):
    return Bad(items)
""",
    "deleting a directory by its name": """
class Bad(DictStore):
    def _delete(self, key):
        doomed = [k for k in self.root if k == key or k.startswith(key + "/")]
        if not doomed:
            raise KeyError(key)
        for k in doomed:
            del self.root[k]
""",
    "values shared with the caller": """
class Bad(DictStore):
    def __setitem__(self, key, value):
        self.root[keys.check_key(key)] = value
""",
    "a listing with wildcards": """
import fnmatch
class Bad(DictStore):
    def _keys(self, path):
        return [key for key in list(self.root) if not path or fnmatch.fnmatchcase(key, path + "/*")]
""",
}


def test_the_suite_finds_each(tmp_path: Path) -> None:
    modules = {bug: tmp_path / f"test_bad_{number}.py" for number, bug in enumerate(BUGS)}
    for bug, module in modules.items():
        module.write_text(
            f"{PRELUDE}{BUGS[bug]}\n\nclass TestBad(StoreConformance):\n"
            "    checks_processes = pickles = False\n"
            "    def make_store(self, tmp_path):\n        return Bad()\n"
            "    make_filled = globals().get('fill', StoreConformance.make_filled)\n"
        )
    # One process for all: to start and import takes longer than any of the suites.
    command = [sys.executable, "-m", "pytest", "-q", "-k", "not random_histories", "-rf", *PLAIN]
    done = subprocess.run(
        [*command, "-c", "/dev/null", *map(str, modules.values())],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parent.parent,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    failed = set(re.findall(r"^FAILED \S*?(test_bad_\d+\.py)::", done.stdout, re.MULTILINE))
    assert [bug for bug, module in modules.items() if module.name not in failed] == [], done.stdout
