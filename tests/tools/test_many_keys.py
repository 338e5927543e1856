"""A million keys and more: memory does not grow with their number."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

#: Run as a process of its own, whose peak of memory is its own.
SCRIPT = """
import itertools, json, sys, tempfile, time
from pathlib import Path
from zarrstore import copy_store, diff, verify, write_manifest
from zarrstore.base import Capabilities, Store
from zarrstore.tools.manifest import compare_manifest
from zarrstore.tools.tree import du

COUNT = int(sys.argv[2])


class Made(Store):
    '''Keys that are made when they are listed, in no order: `count` of them, of which every `step`-th is there.'''

    capabilities = Capabilities()

    def __init__(self, count, step=1):
        self.count, self.step, self.written = count, step, 0

    def _keys(self, path):
        yield 'a/.zarray'
        for n in range(0, self.count, self.step):
            yield f'a/temperature/{n * 7919 % self.count:09d}.0.0'

    def _get(self, key):
        return b'value'

    def _nbytes(self, key):
        return 5

    def _set(self, key, value):
        self.written += 1

    def _delete(self, key):
        raise NotImplementedError


class Arrays(Made):
    '''Arrays of 100,000 chunks of a byte each.'''

    def _keys(self, path):
        for n in range(0, COUNT, 100_000):
            if path in ('', f'a{n}'):
                yield f'a{n}/.zarray'
                yield from (f'a{n}/{i}' for i in range(min(COUNT - n, 100_000)))

    def _listdir(self, path):
        return ['.zarray'] if path else [f'a{n}' for n in range(0, COUNT, 100_000)]

    def _contains(self, key):
        return key.endswith(('.zarray', *'0123456789')) and '/' in key

    def _get(self, key):
        if not self._contains(key):
            raise KeyError(key)
        return DOCUMENT if key.endswith('.zarray') else b'1'


DOCUMENT = json.dumps({
    'zarr_format': 2, 'shape': [min(COUNT, 100_000)], 'chunks': [1], 'dtype': '|u1', 'compressor': None,
    'fill_value': None, 'order': 'C', 'filters': None,
}).encode()


class Stop(BaseException):
    pass


class Interrupted(Made):
    left = COUNT * 3 // 4

    def _set(self, key, value):
        self.left -= 1
        if self.left == 0:
            raise Stop


folder = Path(tempfile.mkdtemp())
start = time.process_time()
what = sys.argv[1]
if what == 'copy':
    dest = Made(COUNT, step=2)
    found = copy_store(Made(COUNT), dest, if_exists='skip')[:2]
    wanted = COUNT // 2, COUNT // 2 + 1
elif what == 'resume':
    dest = Interrupted(COUNT)
    try:
        copy_store(Made(COUNT), dest, if_exists='replace', resume=folder / 'journal')
    except Stop:
        pass
    dest.left = -1
    copied, skipped = copy_store(Made(COUNT), dest, if_exists='replace', resume=folder / 'journal')[:2]
    found = copied + skipped, skipped > COUNT // 2
    wanted = COUNT + 1, True
elif what == 'diff':
    found = sum(1 for difference in diff(Made(COUNT), Made(COUNT, step=2)))
    wanted = COUNT // 2
elif what == 'manifest':
    assert write_manifest(Made(COUNT), folder / 'sums') == COUNT + 1
    found, wanted = sum(1 for _ in compare_manifest(Made(COUNT), folder / 'sums')), 0
elif what == 'verify':
    report = verify(Arrays(COUNT))
    found, wanted = (bool(report), report.n_decoded), (True, COUNT)
elif what == 'du':
    found, wanted = du(Made(COUNT))[0].nkeys, COUNT + 1
assert found == wanted, (found, wanted)
# Not ru_maxrss, which begins with that of the process that started this one.
status = Path('/proc/self/status').read_text()
peak = int(status.partition('VmHWM:')[2].split()[0]) << 10
seconds = time.process_time() - start
print(json.dumps({'peak': peak, 'seconds': seconds, 'us_a_key': seconds / COUNT * 1e6}))
"""


def run(what: str, count: int, tmp_path: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, what, str(count)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    print(what, f"{count:,}", found)
    return found  # type: ignore[no-any-return]


VERBS = ["copy", "resume", "diff", "manifest", "verify", "du"]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("what", VERBS)
def test_a_million_keys_take_300_mib_at_most(what: str, tmp_path: Path) -> None:
    assert run(what, 1_000_000, tmp_path)["peak"] <= 300 << 20


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("what", VERBS)
def test_ten_million_keys_take_300_mib_at_most(what: str, tmp_path: Path) -> None:
    assert run(what, 10_000_000, tmp_path)["peak"] <= 300 << 20
