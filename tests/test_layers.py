"""The walls of the house: who may import whom, told by the source and not by what happens to be loaded."""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.cases import each_of
from zarrstore.errors import MissingDependencyError

PACKAGE = Path(__file__).resolve().parent.parent / "zarrstore"


class Room(NamedTuple):
    """Modules that obey the same rule: what they may import of zarrstore, and why not more."""

    modules: str
    may_import: str
    because: str


# The first room whose pattern fits a module is its room. Patterns are of whole dotted names below zarrstore.
ALGEBRA = r"errors|threads|permits|keys|chunknames|values|spans|optional|answers|urls|shown|longpaths"
CONTRACT = rf"{ALGEBRA}|metadata(\..*)?|allowance|driver|base|batch|refuse|adapt|spelling|targets"
WRAPPERS = r"wrappers(\..*)?"
ROOMS = {
    "the words": Room(r"errors", r"(?!)", "errors are the bottom of the house"),
    "the algebra": Room(ALGEBRA, ALGEBRA, "keys and values know no metadata and no store"),
    "metadata": Room(r"metadata(\..*)?", rf"{ALGEBRA}|metadata(\..*)?", "documents know no store"),
    "the contract": Room(
        r"allowance|driver|base|batch|refuse",
        rf"{ALGEBRA}|allowance|driver|base|batch|refuse",
        "a Store knows nobody who implements or adapts it",
    ),
    "adapt": Room(r"adapt", CONTRACT, "an adapter knows the contract, and no store"),
    "targets": Room(r"targets", CONTRACT, "it opens by way of the registry, whose name is all it knows"),
    "spelling": Room(r"spelling", CONTRACT, "how chunks are spelled is seen through the contract, in any store"),
    "children of directory": Room(
        r"stores\.(nested|temp)",
        rf"{CONTRACT}|stores|stores\.(_.*|directory|nested|temp)",
        "they refine DirectoryStore and know no other backend",
    ),
    "backends": Room(
        r"stores(\..*)?",
        rf"{CONTRACT}|stores|stores\._.*",
        "a backend imports the contract and no neighbour (what several share begins with an underscore)",
    ),
    "bridges": Room(
        r"bridges(\.(?!(xarray|filesystem)$).*)?",
        rf"{CONTRACT}|bridges(\..*)?|{WRAPPERS}",
        "a bridge joins the contract to another world, and never to a concrete store",
    ),
    "wrappers": Room(
        WRAPPERS, rf"{CONTRACT}|{WRAPPERS}", "a wrapper goes round any store, so it knows no concrete one"
    ),
    "verbs": Room(
        r"nodes|ops|hierarchy|kinds|pipelines|registry|remotefile|tools(\..*)?|testing(\..*)?",
        rf"{CONTRACT}|{WRAPPERS}|nodes|ops|hierarchy|kinds|pipelines|registry|remotefile|tools(\..*)?|testing(\..*)?",
        "a verb works over any mapping and knows no concrete store; the registry knows classes by dotted names",
    ),
    # bridges.xarray and bridges.filesystem are what xarray and fsspec call with a path, as a user calls open_store.
    "doors": Room(
        r"|__main__|cli(\..*)?|server(\..*)?|bridges\.(xarray|filesystem)", r".*", "a door opens to everything"
    ),
}

#: Third parties that may be imported at the head of a file: nobody meets these files by importing zarrstore.
HEAD_IMPORTS = r"bridges\..*|testing\..*|cli\..*|server\..*"
#: Third parties that the lower layers may use at all, within functions.
USES = {"metadata": {"numpy", "numcodecs", "google_crc32c", "msgpack"}}


class Import(NamedTuple):
    """One import: the module it names (below zarrstore, or a third party), where, and whether at the head."""

    of: str
    ours: bool
    line: int
    at_head: bool


def modules() -> dict[str, Path]:
    """Return every module below zarrstore by its dotted name, "" for the package."""
    named = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        named[".".join(parts).removesuffix("__init__").rstrip(".")] = path
    return named


MODULES = modules()


#: Packages of one store or wrapper: their other modules are private to them.
HOUSES = sorted(
    module
    for module, path in MODULES.items()
    if re.match(r"(stores|wrappers)\.", module) and path.name == "__init__.py"
)


def house_of(module: str) -> str:
    """Return the package of one store or wrapper that a module belongs to; "" if it belongs to none."""
    return next((house for house in HOUSES if f"{module}.".startswith(f"{house}.")), "")


def room_of(module: str) -> str:
    for name, room in ROOMS.items():
        if re.fullmatch(room.modules, module):
            return name
    raise AssertionError(f"zarrstore/{module.replace('.', '/')}.py stands in no layer: give it one in {__file__}")


class Found(NamedTuple):
    """What imports, or calls `require`; whether it is at the head of the file, and for type checkers only."""

    node: ast.Import | ast.ImportFrom | ast.Call
    at_head: bool
    for_types: bool


@functools.cache
def found_imports(source: str) -> list[Found]:
    """Return what imports in a file. Two tests ask this of all modules, and to parse those takes most of the time."""
    found: list[Found] = []
    waiting: list[tuple[ast.AST, bool, bool]] = [(ast.parse(source), True, False)]
    while waiting:
        node, at_head, for_types = waiting.pop()
        if isinstance(node, ast.Import | ast.ImportFrom) or (isinstance(node, ast.Call) and _is_require(node)):
            found.append(Found(node, at_head, for_types))
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting += [(part, at_head, True) for part in node.body]
            waiting += [(part, at_head, for_types) for part in node.orelse]
            continue
        at_head = at_head and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        waiting += [(part, at_head, for_types) for part in ast.iter_child_nodes(node)]
    return sorted(found, key=lambda one: one.node.lineno)


def _is_require(call: ast.Call) -> bool:
    return "require" in (getattr(call.func, "id", ""), getattr(call.func, "attr", ""))


def imports(source: str) -> Iterator[Import]:
    """Yield what a file imports, but for what only type checkers see."""
    for node, at_head, for_types in found_imports(source):
        if for_types:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _named(alias.name, "", node.lineno, at_head)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute here"
            for alias in node.names:
                yield from _named(node.module or "", alias.name, node.lineno, at_head)
        elif node.args and isinstance(node.args[0], ast.Constant):
            yield from _named(str(node.args[0].value), "", node.lineno, at_head)


def _named(module: str, member: str, line: int, at_head: bool) -> Iterator[Import]:
    top, _, below = module.partition(".")
    if top == "zarrstore":
        whole = f"{below}.{member}".strip(".")
        yield Import(whole if whole in MODULES else below, True, line, at_head)
    elif top not in sys.stdlib_module_names:
        yield Import(top, False, line, at_head)


def faults(module: str, source: str) -> list[str]:
    """Return one sentence for each import that climbs a wall."""
    name = room_of(module)
    room = ROOMS[name]
    where = MODULES.get(module, Path(module)).name if module else "__init__.py"
    found = []
    for one in imports(source):
        house = house_of(one.of) if one.ours else ""
        if house and house == house_of(module):
            continue
        if house and one.of != house:
            found.append(
                f"{module} (line {one.line}) imports zarrstore.{one.of}, which is private to zarrstore.{house}."
            )
        elif one.ours and not re.fullmatch(room.may_import, one.of):
            target = f"zarrstore.{one.of}".rstrip(".")
            found.append(
                f"{module or 'zarrstore'} ({where}, line {one.line}) belongs to {name} and imports {target}, "
                f"which belongs to {room_of(one.of)}: {room.because}."
            )
        elif not one.ours and one.at_head and not re.fullmatch(HEAD_IMPORTS, module):
            found.append(
                f"{module or 'zarrstore'} ({where}, line {one.line}) imports {one.of} at its head: `import zarrstore`"
                " loads no third party; import it where it is used, by optional.require if an extra brings it."
            )
        elif not one.ours and re.fullmatch(CONTRACT, module) and one.of not in USES.get(name, ()):
            found.append(
                f"{module} ({where}, line {one.line}) belongs to {name} and uses {one.of}: below the backends only "
                "metadata uses third parties, and only numpy, numcodecs and google_crc32c."
            )
    return found


@each_of("module", sorted(MODULES), ids=lambda module: module or "zarrstore")
def test_imports_go_downwards_only(module):
    found = faults(module, MODULES[module].read_text(encoding="utf-8"))
    assert not found, "\n".join(found)


@each_of(
    "module", [module for module in sorted(MODULES) if module != "__main__"], ids=lambda module: module or "zarrstore"
)
def test_every_module_can_be_imported(module):
    with contextlib.suppress(MissingDependencyError):
        importlib.import_module(f"zarrstore.{module}".rstrip("."))


@each_of(
    "module, source",
    [
        ("errors", "from zarrstore.keys import join"),
        ("keys", "from zarrstore.metadata import v2"),
        ("keys", "def f():\n    import numpy"),
        ("base", "from zarrstore import adapt"),
        ("base", "def f():\n    from zarrstore.stores.dict import DictStore"),
        ("metadata.v2", "import numpy"),
        ("stores.zip", "from zarrstore.stores.directory import DirectoryStore"),
        ("stores.lmdb", "import lmdb"),
        ("wrappers.lru", "import zarrstore.stores.dict"),
        ("wrappers.lru", "import zarrstore"),
        ("tools.copy", "from zarrstore.stores.zip import ZipStore"),
        ("ops", "from zarrstore.cli import main"),
        ("tools.copy", "from zarrstore.stores.zip.writer import Writer"),
        ("stores.lmdb.files", "from zarrstore.stores.sqlite import connections"),
        ("wrappers.overlay", "from zarrstore.wrappers.lru.tier import Tier"),
        ("adapt", "def f():\n    return require('fsspec', extra='fsspec', feature='this')"),
    ],
)
def test_a_climbed_wall_is_seen(module, source):
    assert len(faults(module, source)) == 1


@pytest.mark.parametrize(
    "module, source",
    [
        ("metadata.v2", "def f():\n    import numpy"),
        ("base", "if TYPE_CHECKING:\n    from zarrstore.adapt import KVStore"),
        ("stores.temp", "from zarrstore.stores.directory import DirectoryStore"),
        ("stores.lmdb", "def f():\n    lmdb = require('lmdb', extra='lmdb', feature='LMDBStore')"),
        ("bridges.zarr3", "import zarr\nfrom zarrstore.bridges.aio import run"),
        ("cli.tree", "import click\nfrom zarrstore import open_store"),
    ],
)
def test_a_door_is_no_wall(module, source):
    assert faults(module, source) == []


_ALGEBRA_ELSEWHERE = re.compile(r'split\("/"\)|\.[lr]?strip\([^)]*prefix|startswith\([^)]*prefix|\+ "/" \+')


# Not testing/: a model that took keys apart with keys.py would share its mistakes.
@each_of(
    "module",
    [module for module in sorted(MODULES) if not re.match(r"(keys|testing)\b", module)],
    ids=lambda module: module or "zarrstore",
)
def test_keys_are_taken_apart_in_one_module_only(module):
    lines = MODULES[module].read_text(encoding="utf-8").splitlines()
    found = [f"line {at}: {line.strip()}" for at, line in enumerate(lines, 1) if _ALGEBRA_ELSEWHERE.search(line)]
    assert not found, (
        textwrap.indent("\n".join(found), "  ") + "\ndoes what a function of zarrstore.keys does, or should."
    )


def imported_modules(module: str) -> set[str]:
    """Return the modules of zarrstore that one names in its imports, those that only type checkers see included."""
    found = set()
    for node, _, _ in found_imports(MODULES[module].read_text(encoding="utf-8")):
        if isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("zarrstore.") for alias in node.names if "zarrstore." in alias.name}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "zarrstore":
            below = (node.module or "").removeprefix("zarrstore").lstrip(".")
            for alias in node.names:
                whole = f"{below}.{alias.name}".strip(".")
                found.add(whole if whole in MODULES else below)
    return (found & set(MODULES)) - {module, ""}


def test_no_modules_import_each_other_in_a_circle():
    graph = {module: imported_modules(module) for module in MODULES if module}
    circles = []
    for module in sorted(graph):
        seen: dict[str, str] = {}
        waiting = [(name, module) for name in graph[module]]
        while waiting:
            name, source = waiting.pop()
            if name not in seen:
                seen[name] = source
                waiting += [(other, name) for other in graph[name]]
        if module in seen:
            circles.append(f"{seen[module]} imports {module}, which leads to it")
    assert circles == []
