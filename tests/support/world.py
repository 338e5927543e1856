"""Two fences for tests that feed hostile keys to file stores.

`EscapeSentinel` sees every path that Python hands to the operating system and refuses those outside a root.
`run_readonly` runs a script in a world of its own where nothing but one fresh folder in memory can be written (Linux,
as root or where user namespaces are allowed), so that even what the sentinel cannot see (C libraries) does no harm.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support import peers

#: Set within the read-only world to the one folder that can be written.
WORLD = "ZARRSTORE_READONLY_WORLD"

# Where the paths stand among the arguments of each audit event. Opening by a descriptor's number is no path.
_PATHS = {
    "open": (0,),
    "glob.glob": (0,),
    "glob.glob/2": (0,),
    "os.chdir": (0,),
    "os.chflags": (0,),
    "os.chmod": (0,),
    "os.chown": (0,),
    "os.getxattr": (0,),
    "os.link": (0, 1),
    "os.listdir": (0,),
    "os.listxattr": (0,),
    "os.mkdir": (0,),
    "os.remove": (0,),
    "os.removexattr": (0,),
    "os.rename": (0, 1),
    "os.rmdir": (0,),
    "os.scandir": (0,),
    "os.setxattr": (0,),
    "os.symlink": (1,),  # where it points to is text until someone follows it
    "os.truncate": (0,),
    "os.utime": (0,),
    "os.walk": (0,),
    "pathlib.Path.glob": (0,),
    "pathlib.Path.rglob": (0,),
    "shutil.chown": (0,),
    "shutil.copyfile": (0, 1),
    "shutil.copymode": (0, 1),
    "shutil.copystat": (0, 1),
    "shutil.copytree": (0, 1),
    "shutil.make_archive": (0, 2),
    "shutil.move": (0, 1),
    "shutil.rmtree": (0,),
    "shutil.unpack_archive": (0, 1),
    "sqlite3.connect": (0,),
    "tempfile.mkdtemp": (0,),
    "tempfile.mkstemp": (0,),
}
_LOOKS = {"os.listdir", "os.scandir"}


class EscapeError(PermissionError):
    """The sentinel refused a path."""


class EscapeSentinel:
    """While armed, refuse and record every path outside `root` that an audit event carries, from any thread.

    Parameters
    ----------
    root : path-like
        The only folder that may be touched. It becomes the working directory while the sentinel is armed, so that a
        relative path (and one relative to a directory descriptor, which no event tells) is judged from there.
    also : iterable of path-like
        Further folders that may be touched.

    Notes
    -----
    Python's own modules may be read, for imports. ``os.stat`` and ``os.access`` raise no audit event, and C libraries
    (LMDB, gdbm) raise none at all. What is symbolic below `root` is judged where it leads.

    Examples
    --------
    ::

        with EscapeSentinel(tmp_path / "store") as sentinel:
            ...
        assert sentinel.escapes == []
    """

    def __init__(self, root: str | os.PathLike[str], also: Sequence[str | os.PathLike[str]] = ()) -> None:
        self.root = os.path.realpath(root)
        self._allowed = tuple(os.path.realpath(folder) for folder in (self.root, *also))
        self.escapes: list[tuple[str, str]] = []
        self._before: tuple[str, bool] | None = None

    def arm(self) -> EscapeSentinel:
        """Begin to watch."""
        assert self._before is None, "armed already"
        _listen()
        os.makedirs(self.root, exist_ok=True)
        self._before = os.getcwd(), sys.dont_write_bytecode
        sys.dont_write_bytecode = True  # an import meanwhile would write beside its source
        os.chdir(self.root)
        _armed.append(self)
        return self

    def disarm(self) -> None:
        """Watch no more."""
        assert self._before is not None, "not armed"
        _armed.remove(self)
        folder, sys.dont_write_bytecode = self._before
        self._before = None
        os.chdir(folder)

    def __enter__(self) -> EscapeSentinel:
        return self.arm()

    def __exit__(self, *exc: object) -> None:
        self.disarm()

    def judge(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Raise EscapeError if the event leads outside."""
        for index in _PATHS[event]:
            path = arguments[index] if index < len(arguments) else None
            if path is None or isinstance(path, int):
                continue
            place = self._place(path, event, arguments)
            if place is None or _within(place, self._allowed):
                continue
            if _only_looks(event, arguments) and _within(place, _python_folders()):
                continue
            self.escapes.append((event, place))
            raise EscapeError(f"{event} of {place!r}: outside {self.root!r}")

    def _place(self, path: Any, event: str, arguments: tuple[Any, ...] = ()) -> str | None:
        text = os.fsdecode(path)
        if event == "sqlite3.connect":
            if text in (":memory:", ""):
                return None
            text = text.removeprefix("file:").partition("?")[0]
        if text == os.devnull or "\0" in text:  # the latter gets no further than ValueError
            return None
        # What an operation does to a link, it does where the link stands; an open or a listing follows it.
        follow = event in _LOOKS or (event == "open" and not _stops_at_links(arguments))
        full = os.path.join(self.root, text)
        if follow or os.path.basename(full) in ("", ".", ".."):
            return os.path.realpath(full)
        return os.path.join(os.path.realpath(os.path.dirname(full)), os.path.basename(full))


_armed: list[EscapeSentinel] = []
_judging = threading.local()


@functools.cache
def _listen() -> None:
    # A hook cannot be taken out again: there is one, and it asks whoever is armed.
    sys.addaudithook(_hook)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _armed or event not in _PATHS or getattr(_judging, "busy", False):
        return
    _judging.busy = True  # realpath may raise events of its own
    try:
        for sentinel in list(_armed):
            sentinel.judge(event, arguments)
    finally:
        _judging.busy = False


def _within(place: str, folders: Sequence[str]) -> bool:
    return any(place == folder or place.startswith(folder.rstrip(os.sep) + os.sep) for folder in folders)


@functools.cache
def _python_folders() -> tuple[str, ...]:
    folders = {sys.prefix, sys.base_prefix, sys.exec_prefix, str(peers.CHECKOUT), *filter(None, sys.path)}
    return tuple(os.path.realpath(folder) for folder in folders if os.path.isabs(folder) and folder != os.sep)


def _stops_at_links(arguments: tuple[Any, ...]) -> bool:
    # The system refuses to open a link where it is told so: nothing behind it is touched.
    flags = arguments[2] if len(arguments) > 2 else 0
    return isinstance(flags, int) and bool(flags & getattr(os, "O_NOFOLLOW", 0))


def _only_looks(event: str, arguments: tuple[Any, ...]) -> bool:
    if event in _LOOKS:
        return True
    if event != "open":
        return False
    flags = arguments[2] if len(arguments) > 2 else 0
    return not (isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))


# The read-only world. Every mount is made read-only and then looked at again: one that refused stops the whole thing.
_ENTER = r"""
set -eu
world=$1; shift
mount --make-rprivate /
mount -t tmpfs -o mode=700 tmpfs "$world"
unescape() { printf '%b' "$(printf '%s' "$1" | sed 's/\\/\\0/g')"; }
cut -d ' ' -f 5 /proc/self/mountinfo | tac | while read -r place; do
    place=$(unescape "$place")
    [ "$place" = "$world" ] || mount -o remount,bind,ro "$place" 2>/dev/null || true
done
open=$(awk -v world="$world" '$5 != world && $6 !~ /^ro(,|$)/ { print $5 }' /proc/self/mountinfo)
for place in $open; do
    # What is mounted over, or nowhere to be seen, cannot be written through either.
    if [ -e "$place" ] && touch -c "$place" 2>/dev/null && [ -w "$place" ]; then
        echo "still writable: $place" >&2; exit 97
    fi
done
cd "$world"
export TMPDIR="$world" HOME="$world" PYTHONDONTWRITEBYTECODE=1 ZARRSTORE_READONLY_WORLD="$world"
exec "$@"
"""


@functools.cache
def _lacking() -> str:
    if not shutil.which("unshare"):
        return "no unshare on this machine"
    done = _enter(["true"], timeout=60)
    return "" if done.returncode == 0 else f"unshare: {done.stderr.strip()[-200:] or done.returncode}"


def _enter(
    command: Sequence[str], timeout: float, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    unshare = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-Urm"]
    with tempfile.TemporaryDirectory(prefix="zarrstore-world-") as world:
        return subprocess.run(
            [*unshare, "sh", "-c", _ENTER, "sh", world, *command],
            capture_output=True,
            text=True,
            timeout=timeout,
            env=os.environ | {"PYTHONPATH": str(peers.CHECKOUT)} | (env or {}),
            stdin=subprocess.DEVNULL,
        )


def require_readonly() -> None:
    """Skip the test where no such world can be made."""
    reason = _lacking()
    if reason:
        peers.refuse("unshare", f"a mount namespace; {reason}")


def run_readonly(script: str | Path, *args: object, timeout: float = 100) -> Any:
    """Run a script where nothing but its working directory can be written; return its last line, read as JSON.

    The script finds this checkout by ``import zarrstore`` and ``import tests``. Its working directory, which is in
    memory and gone afterwards, is the one place it can write to, and its TMPDIR and HOME.
    """
    require_readonly()
    source = [str(script)] if isinstance(script, Path) else ["-c", textwrap.dedent(script)]
    done = _enter([sys.executable, *source, *map(str, args)], timeout)
    if done.returncode:
        raise AssertionError(f"the script ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    lines = done.stdout.strip().splitlines()
    return json.loads(lines[-1]) if lines else None


def run_tests_readonly(*selection: str, timeout: float = 110) -> str:
    """Run some of this checkout's tests (``"tests/test_x.py::test_y"``) in such a world; return what pytest printed.

    Fails if they fail, or if none ran. Such tests begin with `require_inside`, and stand in files that nobody collects
    unless they are named (``tests/inside_*.py``).
    """
    require_readonly()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    command += ["--rootdir", str(peers.CHECKOUT), "-c", str(peers.CHECKOUT / "setup.cfg")]
    command += [str(peers.CHECKOUT / item) for item in selection]
    # What xdist told this process is not meant for that one.
    forget = [f"-u{name}" for name in os.environ if name.startswith("PYTEST_")]
    done = _enter(["env", *forget, *command], timeout)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def inside() -> bool:
    """Tell whether this process lives in the read-only world."""
    return WORLD in os.environ


def require_inside() -> None:
    """Refuse to go on outside of the read-only world: for code that would feed hostile keys to file stores."""
    assert inside(), "this runs in the read-only world only: see run_tests_readonly"
