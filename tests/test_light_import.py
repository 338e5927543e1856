"""What it costs to import zarrstore, and what its public names owe to who looks them up."""

from __future__ import annotations

import ast
import doctest
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import zarrstore
from tests.support.cases import each_of

ROOT = Path(__file__).parent.parent

_PROBE = """
import sys
before = set(sys.modules)
import zarrstore
for name in zarrstore.__all__:
    getattr(zarrstore, name)
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
print(sorted(loaded - sys.stdlib_module_names - {"zarrstore"}))
"""


def test_importing_zarrstore_loads_no_third_party():
    done = subprocess.run(
        [sys.executable, "-c", _PROBE],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.strip() == "[]"


def test_importing_zarrstore_loads_no_other_module_of_its_own():
    script = "import sys, zarrstore; print([name for name in sys.modules if name.startswith('zarrstore.')])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_importing_zarrstore_loads_next_to_nothing_of_the_standard_library():
    script = "import sys; before = set(sys.modules); import zarrstore; print(sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-S", "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(ast.literal_eval(done.stdout))
    assert (
        {"zarrstore"}
        <= loaded
        <= {"zarrstore", "importlib", "importlib._bootstrap", "importlib._bootstrap_external", "warnings", "_warnings"}
    )


def test_type_checkers_are_shown_the_names_that_are_loaded_on_use():
    shown = {}
    for node in ast.walk(ast.parse(Path(zarrstore.__file__).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("zarrstore."):
            assert all(alias.asname == alias.name for alias in node.names)  # which makes a name public to mypy
            shown |= dict.fromkeys((alias.name for alias in node.names), node.module)
    assert shown == zarrstore._HOMES
    assert set(shown) <= set(dir(zarrstore))


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'zarrstore' has no attribute 'ZipStoer'"):
        _ = zarrstore.ZipStoer


def test_the_public_names_are_sorted_and_stand_once():
    assert list(zarrstore.__all__) == sorted(set(zarrstore.__all__))


@each_of("name", zarrstore.__all__)
def test_every_public_name_has_a_docstring_with_an_example(name):
    thing = getattr(zarrstore, name)
    text = inspect.cleandoc(thing.__doc__ or "")
    assert text, f"zarrstore.{name} has no docstring"
    assert not inspect.isclass(thing) or thing.__doc__ != getattr(thing.__mro__[1], "__doc__", None)
    if inspect.isclass(thing) and issubclass(thing, Exception):
        return  # whose examples stand where it is raised
    examples = doctest.DocTestParser().get_examples(text)
    assert examples, f"the docstring of zarrstore.{name} shows no example"
    assert not any(example.options.get(doctest.SKIP) for example in examples), f"an example of {name} is skipped"


_COMMAND = """
import sys
before = set(sys.modules)
from zarrstore.cli import main
try:
    main(sys.argv[1:])
except SystemExit as exc:
    assert exc.code == 0
print("|".join(sorted(set(sys.modules) - before)))
"""


def _loaded_by(*args: str, cwd: Path) -> set[str]:
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", _COMMAND, *args],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env=env,
        cwd=cwd,
    )
    return set(done.stdout.splitlines()[-1].split("|"))


#: What threads need: loaded with the first value that is copied.
_OF_THREADS = {"concurrent.futures", "logging", "zarrstore.threads", "zarrstore.tools.traffic"}


def test_zarrstore_ls_loads_what_it_needs_and_no_more(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x/.zgroup").write_bytes(b'{"zarr_format": 2}')
    loaded = _loaded_by("ls", "x", cwd=tmp_path)
    third = {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names - {"zarrstore"}
    # rich's own package is looked for, and nothing of it is loaded; org is what CPython's `copy` asks for.
    assert third <= {"click", "rich", "colorama", "org"}
    assert {name for name in loaded if name.startswith("rich.")} <= {"rich._extension"}
    assert not {"concurrent.futures.thread", "hashlib", "urllib.parse", "logging", "asyncio"} & loaded
    ours = {name for name in loaded if name.startswith("zarrstore.")}
    assert not {name for name in ours if name.startswith(("zarrstore.metadata.v", "zarrstore.bridges"))}
    assert len(ours) <= 45, sorted(ours)  # 60 once


def test_a_sync_with_nothing_to_copy_loads_what_it_needs_and_no_more(tmp_path):
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".zgroup").write_bytes(b'{"zarr_format": 2}')
    loaded = _loaded_by("sync", "--quiet", "x", "y", cwd=tmp_path)
    third = {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names - {"zarrstore"}
    assert third <= {"click", "rich", "colorama", "org"}
    # OpenSSL, and the archives that temporary files bring along, take as long to load as all modules of the verb.
    assert not {"hashlib", "tempfile", "lzma", "asyncio", "difflib"} & loaded
    assert not _OF_THREADS & loaded
    assert not {name for name in loaded if name.startswith(("zarrstore.metadata.v", "zarrstore.bridges"))}


def test_a_sync_through_obstore_with_nothing_to_copy_loads_what_it_needs_and_no_more(tmp_path):
    pytest.importorskip("obstore")
    (tmp_path / "x").mkdir()
    loaded = _loaded_by("sync", "--quiet", "x", "obstore+memory:///y", cwd=tmp_path)
    assert "obstore._obstore" in loaded
    assert not {"hashlib", "tempfile", "asyncio", "difflib", "urllib.parse", "pathlib", "ipaddress"} & loaded
    assert not _OF_THREADS & loaded


def test_a_command_starts_and_ends_without_collections(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x/0").write_bytes(b"1")
    script = """
import atexit, gc, sys
from zarrstore.cli import main
runs = []
gc.callbacks.append(lambda phase, info: runs.append(info["generation"]))
atexit.register(lambda: print(len(runs), gc.isenabled(), len(gc.get_objects()) < gc.get_freeze_count()))
sys.argv = ["zarrstore", "copy", "-q", "x", "y"]
main()
"""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path, env=env
    )
    count, enabled, frozen = done.stdout.split()
    # Each has a beginning and an end: 54 once. The verb itself runs with the collector.
    assert int(count) <= 6
    assert (enabled, frozen) == ("True", "True")


def test_a_command_over_s3_does_not_load_the_command_line_of_httpx(tmp_path):
    pytest.importorskip("httpx")
    (tmp_path / "x").mkdir()
    script = """
import sys
from zarrstore.cli import main
sys.argv = ["zarrstore", "ls", "x"]
try:
    main()
finally:
    import httpx
    print(bool(httpx.Client), callable(httpx.main), "pygments" in sys.modules, "rich.console" in sys.modules)
"""
    command, env = [sys.executable, "-c", script], os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env=env)
    assert done.stdout.splitlines()[-1] == "True True False False"


def test_a_command_that_python_calls_leaves_the_collector_alone(tmp_path):
    script = """
import gc
from zarrstore.cli import main
try:
    main(["ls", "--help"])
finally:
    print(gc.isenabled(), gc.get_freeze_count())
"""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path, env=env
    )
    assert done.stdout.splitlines()[-1] == "True 0"


@pytest.mark.parametrize("args", [("tree", "x"), ("attrs", "x"), ("cat", "x", ".zgroup")], ids=lambda args: args[0])
def test_a_verb_that_reads_a_document_loads_nothing_that_draws_computes_or_copies(tmp_path, args):
    (tmp_path / "x").mkdir()
    (tmp_path / "x/.zgroup").write_bytes(b'{"zarr_format": 2}')
    loaded = _loaded_by(*args, cwd=tmp_path)
    assert not {"numpy", "numcodecs", "dask", "rich.console", "asyncio", "concurrent.futures", "logging"} & loaded
    heavy = {"metadata.consolidated", "metadata.v3", "tools.consolidate", "tools.copying", "tools.nearby"}
    assert not {f"zarrstore.{name}" for name in heavy} & loaded


@pytest.mark.parametrize("args", [("du", "x"), ("info", "x")], ids=lambda args: args[0])
def test_a_table_in_a_pipe_is_written_without_what_draws(tmp_path, args):
    (tmp_path / "x").mkdir()
    (tmp_path / "x/.zgroup").write_bytes(b'{"zarr_format": 2}')
    # Latin letters are one cell wide; wider ones are laid out by rich.
    (tmp_path / "x/.zattrs").write_bytes('{"note": "\u017elu\u0165ou\u010dk\u00fd"}'.encode())
    loaded = _loaded_by(*args, cwd=tmp_path)
    third = {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names - {"zarrstore"}
    assert third <= {"click", "rich", "colorama", "org"}
    assert {name for name in loaded if name.startswith("rich.")} <= {"rich._extension"}
    assert not {"pickle", "asyncio", "concurrent.futures", "logging"} & loaded


def test_a_copy_loads_what_it_needs_and_no_more(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x/.zgroup").write_bytes(b'{"zarr_format": 2}')
    loaded = _loaded_by("copy", "x", "y", cwd=tmp_path)
    assert (tmp_path / "y/.zgroup").exists()
    third = {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names - {"zarrstore"}
    assert third <= {"click", "rich", "colorama", "org"}
    # A copy by threads needs neither what other processes take, nor a journal, nor a limit, nor second tries.
    assert not {"pickle", "socket", "urllib.parse", "pathlib", "random", "hashlib", "asyncio"} & loaded
    unused = ("tools.journal", "tools.manifest", "tools.subtrees", "tools.throttle", "wrappers.retry")
    assert not {f"zarrstore.{name}" for name in unused} & loaded


def test_the_help_imports_no_verb(tmp_path):
    loaded = _loaded_by("--help", cwd=tmp_path)
    ours = {name for name in loaded if name.startswith("zarrstore.")}
    assert ours == {
        "zarrstore.cli",
        "zarrstore.cli.examples",
        "zarrstore.cli.group",
        "zarrstore.errors",
        "zarrstore.optional",
    }
