"""What it costs to import zarrstore, and what its public names owe to who looks them up."""

from __future__ import annotations

import doctest
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import zarrstore

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
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    assert done.stdout.strip() == "[]"


def test_the_public_names_are_sorted_and_stand_once():
    assert list(zarrstore.__all__) == sorted(set(zarrstore.__all__))


@pytest.mark.parametrize("name", zarrstore.__all__)
def test_every_public_name_has_a_docstring_with_an_example(name):
    thing = getattr(zarrstore, name)
    text = inspect.cleandoc(thing.__doc__ or "")
    assert text, f"zarrstore.{name} has no docstring"
    assert not inspect.isclass(thing) or thing.__doc__ != getattr(thing.__mro__[1], "__doc__", None)
    examples = doctest.DocTestParser().get_examples(text)
    assert examples, f"the docstring of zarrstore.{name} shows no example"
    assert not any(example.options.get(doctest.SKIP) for example in examples), f"an example of {name} is skipped"
