"""The conformance suite as others use it: in a project of their own, with the plugin by its name."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from zarrstore.testing import conformance

CHECKOUT = Path(__file__).parent.parent.parent

STORE = """
import os
from pathlib import Path

class MyStore(dict):
    def __init__(self, path):
        super().__init__()
        self.path = path
        if path.exists():
            self.update(eval(path.read_text()))

    def close(self):
        self.path.write_text(repr(dict(self)))
"""


def example() -> str:
    """Return the example of the suite's docstring."""
    assert conformance.__doc__ is not None
    block = conformance.__doc__.partition("::\n")[2].partition("\nWhat the store's")[0]
    return textwrap.dedent(block)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a folder with a store of its own and the example as its only test file."""
    (tmp_path / "mypackage.py").write_text(STORE)
    (tmp_path / "test_mystore.py").write_text(example())
    return tmp_path


def run_pytest(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    env |= {"PYTHONPATH": os.pathsep.join([str(CHECKOUT), str(project)]), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, timeout=100)


def test_the_example_of_the_docstring_runs_in_a_project_of_its_own(project):
    assert "class TestMyStore(StoreConformance):" in example()
    done = run_pytest(project, "-p", "pytest_zarrstore")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_with_the_plugin_a_failed_assertion_shows_what_was_compared(project):
    source = (project / "mypackage.py").read_text()
    broken = "\n    def __iter__(self):\n        return iter([])\n"
    (project / "mypackage.py").write_text(source + broken)
    chosen = ["-k", "opened_again"]
    with_plugin = run_pytest(project, "-p", "pytest_zarrstore", *chosen)
    assert with_plugin.returncode == 1
    assert "assert [] == [" in with_plugin.stdout, with_plugin.stdout


def test_the_plugin_loads_nothing_of_zarrstore():
    script = "import sys, pytest_zarrstore; print([name for name in sys.modules if name.startswith('zarrstore')])"
    done = subprocess.run([sys.executable, "-c", script], cwd=CHECKOUT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_the_plugin_is_installed_under_its_own_name():
    from configparser import ConfigParser

    config = ConfigParser()
    config.read(CHECKOUT / "setup.cfg", encoding="utf-8")
    assert config["options.entry_points"]["pytest11"].split() == ["pytest_zarrstore", "=", "pytest_zarrstore"]
    assert config["options"]["py_modules"].split() == ["pytest_zarrstore"]
