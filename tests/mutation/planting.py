"""Every small change that can be planted in a module: a condition turned round, a statement left out, and others."""

from __future__ import annotations

import ast
import functools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Change", "changes_of", "source_of"]

PACKAGE = Path(__file__).resolve().parent.parent.parent / "zarrstore"

#: Comparisons and what each is changed into.
_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
#: Calls whose loss nothing but a figure on a screen or the speed would show.
_SILENT = frozenset({"report", "say", "log", "write_line"})


@dataclass(frozen=True)
class Change:
    """One planted change.

    Parameters
    ----------
    module : str
        Dotted name below ``zarrstore``.
    where : str
        The function, with its class.
    line : int
        Of the module as it is now.
    what : str
        The change in words: what was, and what it becomes, with a number if the function has it more than once. With
        `module` and `where`, the name of the change.
    index, number : int
        Which node of the module is changed, and in which of the ways that there are for it.
    """

    module: str
    where: str
    line: int
    what: str
    index: int
    number: int

    @property
    def name(self) -> str:
        """What survivors are explained under: stable when lines move."""
        return f"{self.module}: {self.where}: {self.what}"

    @property
    def source(self) -> str:
        """The changed module."""
        tree = ast.parse(source_of(self.module))
        node = next(node for at, (_, node) in enumerate(_walk(tree)) if at == self.index)
        change = next(change for n, (_, change) in enumerate(_changes(node)) if n == self.number)
        change(node)
        return ast.unparse(ast.fix_missing_locations(tree))


@functools.cache
def changes_of(module: str) -> tuple[Change, ...]:
    """Return every change that can be planted in a module, in the order of its lines."""
    return tuple(_changes_of(module))


def _changes_of(module: str) -> Iterator[Change]:
    text = source_of(module)
    lines = text.splitlines()
    times: Counter[tuple[str, str]] = Counter()
    for index, (where, node) in enumerate(_walk(ast.parse(text))):
        line = getattr(node, "lineno", 0)
        if line and "pragma: no cover" in lines[line - 1]:
            continue
        for number, (what, _) in enumerate(_changes(node)):
            times[where, what] += 1
            again = f" ({times[where, what]})" if times[where, what] > 1 else ""
            yield Change(module, where, line, what + again, index, number)


def source_of(module: str) -> str:
    """Return the text of a module as it is."""
    return _path(module).read_text()


def _path(module: str) -> Path:
    path = PACKAGE / Path(*module.split("."))
    return path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"


def _walk(tree: ast.AST, where: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Yield every node within a function, with the name of that function."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            name = f"{where}.{child.name}" if where else child.name
            if name.endswith("__repr__"):
                continue
            for statement in child.body:
                yield from _statement(statement, name, isinstance(child, ast.ClassDef))
        elif isinstance(child, ast.stmt) and not where:
            continue  # imports and constants of the module
        else:
            yield from _statement(child, where, False)


def _statement(node: ast.AST, where: str, in_class: bool) -> Iterator[tuple[str, ast.AST]]:
    if isinstance(node, ast.Raise):
        return  # the words of errors are tested where they matter
    if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
        yield from _walk(ast.Module([node], []), where)
        return
    if in_class:
        return  # attributes and docstrings of a class
    yield where, node
    yield from _walk(node, where)


def _changes(node: ast.AST) -> Iterator[tuple[str, Callable[[ast.AST], None]]]:
    if isinstance(node, ast.If | ast.IfExp | ast.While):
        yield f"`{_short(node.test)}` turned round", _negate_test
    elif isinstance(node, ast.comprehension):
        for n, test in enumerate(node.ifs):
            yield f"filter `{_short(test)}` left out", lambda target, n=n: target.ifs.pop(n)  # type: ignore[misc]
    elif isinstance(node, ast.Compare):
        for n, operator in enumerate(node.ops):
            other = _COMPARISONS[type(operator)]
            if other in (ast.Lt, ast.LtE, ast.Gt, ast.GtE):  # the others are conditions turned round
                yield f"`{_short(node)}` with {other.__name__}", lambda target, n=n, o=other: _operator(target, n, o)  # type: ignore[misc]
    elif isinstance(node, ast.BoolOp):
        yield f"`{_short(node)}` with {'or' if isinstance(node.op, ast.And) else 'and'}", _other_bool_op
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield f"{node.value} becomes {not node.value}", _other_bool
    elif isinstance(node, ast.AugAssign):
        yield f"`{_short(node)}` left out", _leave_out_target
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        function = node.value.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        if name not in _SILENT:
            yield f"`{_short(node)}` left out", _leave_out_target
    elif isinstance(node, ast.Delete | ast.Continue | ast.Break):
        yield f"`{_short(node)}` left out", _leave_out_target


def _short(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 70 else f"{text[:67]}..."


def _negate_test(target: ast.AST) -> None:
    assert isinstance(target, ast.If | ast.IfExp | ast.While)
    target.test = ast.UnaryOp(ast.Not(), target.test)


def _operator(target: ast.AST, n: int, operator: type[ast.cmpop]) -> None:
    assert isinstance(target, ast.Compare)
    target.ops[n] = operator()


def _other_bool_op(target: ast.AST) -> None:
    assert isinstance(target, ast.BoolOp)
    target.op = ast.Or() if isinstance(target.op, ast.And) else ast.And()


def _other_bool(target: ast.AST) -> None:
    assert isinstance(target, ast.Constant)
    target.value = not target.value


def _leave_out_target(target: ast.AST) -> None:
    # A statement becomes one that does nothing, in place: its class is changed, its fields are replaced.
    target.__class__ = ast.Pass
    target.__dict__ = {name: value for name, value in target.__dict__.items() if name in ("lineno", "col_offset")}
