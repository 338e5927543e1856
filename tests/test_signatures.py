"""The values of a parameter that its docstring names are its type, too: ``Literal``, for editors and type checkers."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

import zarrstore

_DOCUMENTED = re.compile(r"^(?P<names>\w+(?:, \w+)*) : \{(?P<values>[^}]*)\}", re.MULTILINE)
#: What decides how a call behaves.
CHOICES = {"mode", "flag", "if_exists", "errors", "order", "missing", "durability"}
CHOICES |= {"dimension_separator", "key_separator", "separator"}


def _documented() -> Iterator[tuple[str, str, set[Any], Callable[..., Any]]]:
    for public in zarrstore.__all__:
        thing = getattr(zarrstore, public)
        text = inspect.cleandoc(thing.__doc__ or "")
        for match in _DOCUMENTED.finditer(text):
            values = set(ast.literal_eval(f"[{match['values']}]"))
            call = thing.__init__ if inspect.isclass(thing) else thing
            for name in match["names"].split(", "):
                if name in CHOICES & inspect.signature(call).parameters.keys():
                    yield public, name, values, call


def _literals(annotation: Any) -> set[Any]:
    if get_origin(annotation) is Literal:
        return set(get_args(annotation))
    return {value for part in get_args(annotation) for value in _literals(part)}


CASES = list(_documented())


def test_there_are_such_parameters() -> None:
    assert {
        ("open_store", "mode"),
        ("copy_store", "if_exists"),
        ("DBMStore", "flag"),
        ("FSStore", "key_separator"),
        ("respell", "separator"),
        ("ZipStore", "dimension_separator"),
    } <= {case[:2] for case in CASES}


@pytest.mark.parametrize(("public", "name", "values", "call"), CASES, ids=[f"{case[0]}-{case[1]}" for case in CASES])
def test_the_type_names_the_values_that_the_docstring_names(
    public: str, name: str, values: set[Any], call: Callable[..., Any]
) -> None:
    def alone() -> None: ...

    alone.__annotations__ = {name: call.__annotations__[name]}
    found = _literals(get_type_hints(alone, vars(sys.modules[call.__module__]))[name])
    # More than that are other spellings: 'w-' of 'x', and the letters that only some databases know after the first.
    assert values <= found


def test_a_parameter_of_a_few_names_has_their_type() -> None:
    plain = []
    for public in zarrstore.__all__:
        thing = getattr(zarrstore, public)
        call = thing.__init__ if inspect.isclass(thing) else thing
        for name, parameter in inspect.signature(call).parameters.items():
            if name in CHOICES and parameter.annotation in ("str", "str | None"):
                plain.append((public, name))
    assert plain == []
