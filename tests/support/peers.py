"""The real components that tests run against: other releases of zarr, other interpreters, servers, programs.

::

    python tests/support/peers.py list               what there is, and what is missing
    python tests/support/peers.py install zarr2 s3   put these in place (Debian packages as root, the rest by pip)
    python tests/support/peers.py install            all of them
    python tests/support/peers.py path zarr2         its interpreter

Interpreters of their own live in ``.peers/NAME`` of the checkout, or in ``$ZARRSTORE_PEERS/NAME``. A test asks for
what it needs (`python`, `run`, `require`) and is skipped with the line that would install it; with
``ZARRSTORE_REQUIRE_PEERS=1``, as in CI, it fails instead.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

CHECKOUT = Path(__file__).resolve().parent.parent.parent
HOME = Path(os.environ.get("ZARRSTORE_PEERS") or CHECKOUT / ".peers")

PACKAGE = ("numpy", "numcodecs", "msgpack", "lmdb")
SUITE = ("pytest>=8.2", "pytest-asyncio>=0.24", "pytest-timeout", "hypothesis>=6.100")


@dataclass(frozen=True)
class Interpreter:
    """A virtual environment: from a Python of one of `versions`, or from the system's own at `path`."""

    what: str
    requirements: tuple[str, ...]
    versions: tuple[str, ...] = ()
    path: str = ""
    modules: tuple[str, ...] = ()  # of the standard library, which not every build has
    packages: tuple[str, ...] = ()  # of Debian, that bring them


@dataclass(frozen=True)
class Programs:
    """Commands, and the Debian packages that bring them."""

    what: str
    commands: tuple[str, ...]
    packages: tuple[str, ...]


@dataclass(frozen=True)
class Modules:
    """Packages of npm, below ``node_modules`` of the peer's directory."""

    what: str
    packages: tuple[str, ...]


MODULES = {
    "zarrita": Modules("zarrita, which reads Zarr in browsers", ("zarrita", "@zarrita/storage", "esbuild")),
}
INTERPRETERS = {
    "zarr2": Interpreter(
        "zarr 2.18.7",
        (
            "zarr==2.18.7",
            "numcodecs>=0.12,<0.16",
            "numpy",
            "msgpack",
            "lmdb",
            "fsspec",
            "xarray",
            "dask[array]",
            "distributed",
            "urllib3",
            "s3fs",
            "pcodec",
            "zfpy==1.0.1",  # numcodecs cannot read the number of 1.0.1.post0
            *SUITE,
        ),
        versions=("3.11", "3.12", "3.13"),
    ),
    "z34": Interpreter(
        "zarr 3.4, which needs Python 3.12",
        ("zarr>=3.4,<3.5", *PACKAGE, "fsspec", "xarray", "obstore", "icechunk", "pcodec", "zfpy==1.0.1", *SUITE),
        versions=("3.12", "3.13"),
    ),
    "py313": Interpreter(
        "Python 3.13, whose dbm knows sqlite3",
        (*PACKAGE, *SUITE),
        versions=("3.13", "3.14"),
        modules=("dbm.sqlite3",),
    ),
    "debian": Interpreter(
        "the system's Python, whose dbm knows ndbm and gnu",
        (*PACKAGE, *SUITE),
        path="/usr/bin/python3",
        modules=("dbm.ndbm", "dbm.gnu"),
        packages=("python3", "python3-venv", "python3-gdbm"),
    ),
    "jupyter": Interpreter(
        "Jupyter, which runs notebooks", ("nbconvert", "ipykernel", *PACKAGE), versions=("3.11", "3.12", "3.13")
    ),
    "gdal": Interpreter("GDAL 3.12, which rasterio brings", ("rasterio>=1.5,<1.6",), versions=("3.12", "3.13")),
    "aws": Interpreter("aws and s5cmd, to race against", ("awscli", "s5cmd"), versions=("3.11", "3.12", "3.13")),
}
PROGRAMS = {
    "s3": Programs(
        "Ceph's S3 gateway",
        ("radosgw", "radosgw-admin", "ceph", "ceph-mon", "ceph-osd", "monmaptool"),
        ("radosgw", "ceph-mon", "ceph-osd", "ceph-common"),
    ),
    "rclone": Programs("rclone, to race against", ("rclone",), ("rclone",)),
    "nginx": Programs("the nginx web server", ("nginx",), ("nginx-light",)),
    "wrk": Programs("wrk, which loads a web server", ("wrk",), ("wrk",)),
    "tools": Programs(
        "strace, zip, unzip, tmux, curl, the making of xfs, and a C compiler",
        ("strace", "zip", "unzip", "tmux", "curl", "mkfs.xfs", "cc"),
        ("strace", "zip", "unzip", "tmux", "curl", "xfsprogs", "gcc", "libc6-dev"),
    ),
    "browser": Programs("a browser without a window, and Node.js", ("chromium", "node", "npm"), ("chromium", "nodejs")),
    "shells": Programs("zsh and fish, which complete what is typed", ("zsh", "fish"), ("zsh", "fish")),
    "exfat": Programs(
        "exFAT through FUSE, which takes no heed of case",
        ("mkfs.exfat", "mount.exfat-fuse", "losetup"),
        ("exfatprogs", "exfat-fuse", "mount"),
    ),
}
ALIASES = {
    "zarr34": ("z34",),
    "zarr3": ("z34",),
    "dbm": ("debian", "py313"),
    "all": (*INTERPRETERS, *PROGRAMS, *MODULES),
}


# What tests call.


def python(name: str) -> str:
    """Return the interpreter of a peer, or skip the test."""
    reason = lacking(name)
    if reason:
        refuse(name, reason)
    return str(_binary(name))


def require(*names: str) -> None:
    """Skip the test unless all of these peers or programs (``"zarr2"``, ``"s3"``, ``"strace"``) are here."""
    for name in names:
        reason = lacking(name)
        if reason:
            refuse(name, reason)


require_tool = require


def run(
    name: str,
    script: str | Path,
    *args: object,
    checkout: bool = True,
    timeout: float = 100,
    env: dict[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
) -> Any:
    """Run a script under a peer's interpreter; return the last line it printed, read as JSON, None if there is none.

    Parameters
    ----------
    name : str
        ``"zarr2"``, ``"z34"``, ``"py313"``, ``"debian"``; or ``"self"`` for the interpreter of this run.
    script : str or Path
        Python source (indented as you like), or a file of it.
    *args : object
        Its ``sys.argv[1:]``, as text.
    checkout : bool, default True
        Whether ``import zarrstore`` and ``import tests`` find this checkout.
    timeout : float, seconds
        After which the script is killed and the test fails.
    """
    interpreter = sys.executable if name == "self" else python(name)
    source = [str(script)] if isinstance(script, Path) else ["-c", textwrap.dedent(script)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "COV_"))}
    environment.pop("PYTHONPATH", None)
    # Bytecode is kept: to compile the package anew costs a third of a second, at each of a hundred starts.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    environment |= {"PYTHONIOENCODING": "utf-8"} | (env or {})
    if checkout:
        environment["PYTHONPATH"] = str(CHECKOUT)
    done = subprocess.run(
        [interpreter, *source, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        raise AssertionError(f"the script ended with {done.returncode} under {name}:\n{done.stdout}{done.stderr}")
    lines = done.stdout.strip().splitlines()
    return json.loads(lines[-1]) if lines else None


def refuse(name: str, reason: str) -> NoReturn:
    """Skip, or fail where every peer is required."""
    import pytest

    message = f"needs {name} ({reason}): python tests/support/peers.py install {_group(name)}"
    if os.environ.get("ZARRSTORE_REQUIRE_PEERS"):
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


# What is here.


@functools.cache
def lacking(name: str) -> str:
    """Say what a peer or a program lacks; nothing if it is here."""
    if name in ALIASES:
        return "; ".join(filter(None, map(lacking, ALIASES[name])))
    if name in INTERPRETERS:
        return _lacking_interpreter(name)
    if name in MODULES:
        missing = [one for one in MODULES[name].packages if not (HOME / name / "node_modules" / one).exists()]
        return f"npm has not installed {', '.join(missing)}" if missing else ""
    commands = PROGRAMS[name].commands if name in PROGRAMS else (name,)
    missing = [command for command in commands if _which(command) is None]
    return f"no {', '.join(missing)} on this machine" if missing else ""


def _lacking_interpreter(name: str) -> str:
    peer = INTERPRETERS[name]
    binary = _binary(name)
    if not binary.exists():
        return f"{peer.what} is not installed"
    wanted = [re.split(r"[\[<>=!]", requirement)[0] for requirement in peer.requirements]
    probe = (
        "import importlib, importlib.metadata as m, sys\n"
        "installed = {d.name.lower().replace('_', '-') for d in m.distributions() if d.name}\n"
        f"lacks = [name for name in {wanted!r} if name not in installed]\n"
        f"for name in {peer.modules!r}:\n"
        "    try: importlib.import_module(name)\n"
        "    except ImportError: lacks.append(name)\n"
        "print(' '.join(lacks))"
    )
    done = subprocess.run([str(binary), "-c", probe], capture_output=True, text=True, timeout=60)
    if done.returncode:
        return f"{peer.what} does not run"
    return f"{peer.what} lacks {done.stdout.strip()}" if done.stdout.strip() else ""


def _binary(name: str) -> Path:
    return HOME / ALIASES.get(name, (name,))[0] / "bin" / "python"


def _which(command: str) -> str | None:
    # Servers and mkfs stand in sbin, which is not on every PATH.
    return shutil.which(command, path=f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin")


def _group(name: str) -> str:
    return next((group for group, peer in PROGRAMS.items() if name in peer.commands), name)


# Putting them in place.


def install(names: Iterable[str]) -> list[str]:
    """Put peers in place and return what still lacks afterwards, a sentence each."""
    lacking.cache_clear()
    wanted = [name for name in dict.fromkeys(_expand(names)) if lacking(name)]
    packages = [package for name in wanted for package in _packages(name)]
    if packages:
        _apt(packages)
    HOME.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(2) as pool:
        notes = list(pool.map(_install_interpreter, [name for name in wanted if name in INTERPRETERS]))
    notes += [_install_modules(name) for name in wanted if name in MODULES]
    lacking.cache_clear()
    return [note for note in notes if note] + [f"{name}: {why}" for name in wanted if (why := lacking(name))]


def _expand(names: Iterable[str]) -> Iterator[str]:
    for name in names:
        name = _group(name)
        if not any(name in known for known in (INTERPRETERS, PROGRAMS, MODULES, ALIASES)):
            raise SystemExit(f"no peer {name!r}; there are {', '.join([*INTERPRETERS, *PROGRAMS, *MODULES, *ALIASES])}")
        yield from ALIASES.get(name, (name,))


def _packages(name: str) -> tuple[str, ...]:
    if name in PROGRAMS:
        return PROGRAMS[name].packages
    if name in MODULES:
        return ()
    peer = INTERPRETERS[name]
    return peer.packages if _can(peer.path, (*peer.modules, "ensurepip")) is False else ()


def _can(interpreter: str, modules: Sequence[str]) -> bool | None:
    """Tell whether an interpreter imports these modules; None where there is no interpreter to ask."""
    if not interpreter:
        return None
    try:
        done = subprocess.run([interpreter, "-c", f"import {', '.join(modules)}"], capture_output=True, timeout=60)
    except OSError:
        return False
    return done.returncode == 0


def _apt(packages: Sequence[str]) -> None:
    if not shutil.which("apt-get"):
        print(f"peers: no apt-get here; bring {' '.join(packages)} by other means", file=sys.stderr)
        return
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *packages]):
        print("peers: apt-get", *arguments, flush=True)
        done = subprocess.run(
            [*sudo, "apt-get", *arguments], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if done.returncode:  # said here, and again by what then lacks
            print(done.stdout[-2000:], done.stderr[-2000:], sep="\n", file=sys.stderr)


def _install_interpreter(name: str) -> str:
    peer = INTERPRETERS[name]
    base = peer.path or find_python(peer.versions)
    if base is None:
        return f"{name}: no Python {' or '.join(peer.versions)} was found"
    print(f"peers: {name}, {peer.what}, from {base}", flush=True)
    if not _binary(name).exists():
        subprocess.run([base, "-m", "venv", str(HOME / name)], check=True, stdin=subprocess.DEVNULL)
    pip = [str(_binary(name)), "-m", "pip", "install", "-q", "--disable-pip-version-check", *peer.requirements]
    done = subprocess.run(pip, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return f"{name}: {done.stderr[-2000:]}" if done.returncode else ""


def _install_modules(name: str) -> str:
    (HOME / name).mkdir(exist_ok=True)
    command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(HOME / name), *MODULES[name].packages]
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except OSError as exc:
        return f"{name}: {exc}"
    return f"{name}: {done.stderr[-2000:]}" if done.returncode else ""


def find_python(versions: Sequence[str]) -> str | None:
    """Return an interpreter of the first of these versions that this machine has."""
    for version in versions:
        for candidate in _pythons(version):
            # A name on PATH may be a shim that only complains: it is run before it is believed.
            probe = f"import sys, ensurepip, lzma, sqlite3; sys.exit('%d.%d' % sys.version_info[:2] != {version!r})"
            try:
                done = subprocess.run([candidate, "-c", probe], capture_output=True, timeout=60)
            except (OSError, subprocess.TimeoutExpired):
                continue
            if done.returncode == 0:
                return candidate
    return None


def _pythons(version: str) -> Iterator[str]:
    yield sys.executable
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        if os.access(Path(folder, f"python{version}"), os.X_OK):
            yield str(Path(folder, f"python{version}"))
    roots = [os.environ.get("PYENV_ROOT"), Path.home() / ".pyenv", "/opt/pyenv", "/usr/local/pyenv"]
    for root in filter(None, roots):
        for found in sorted(Path(root, "versions").glob(f"{version}.*/bin/python{version}"), reverse=True):
            yield str(found)
    for pattern in (f"local/bin/python{version}", f"local/python*/bin/python{version}"):
        yield from map(str, sorted(Path("/usr").glob(pattern)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; 1 if anything asked for is not here in the end."""
    parser = argparse.ArgumentParser(description="the real components that the tests run against")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list", help="what there is, and what is missing")
    verbs.add_parser("install", help="put them in place").add_argument("names", nargs="*", default=["all"])
    verbs.add_parser("path", help="the interpreter of one").add_argument("name", choices=sorted(INTERPRETERS))
    asked = parser.parse_args(arguments)
    if asked.verb == "list":
        for name, peer in (INTERPRETERS | PROGRAMS | MODULES).items():
            print(f"{name:8} {lacking(name) or 'here: ' + peer.what}")
        return 0
    if asked.verb == "path":
        reason = lacking(asked.name)
        print(f"{asked.name}: {reason}" if reason else _binary(asked.name), file=sys.stderr if reason else sys.stdout)
        return 1 if reason else 0
    problems = install(asked.names)
    for problem in problems:
        print(f"peers: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
