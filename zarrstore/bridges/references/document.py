"""Reference files in JSON: version 0, a mapping of keys; version 1, with templates and generated references.

The format is Kerchunk's. Templates are those of Jinja, in its sandbox: a reference file comes from anywhere.
"""

from __future__ import annotations

import base64
import itertools
import json
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from zarrstore import keys as k
from zarrstore.errors import DamagedStoreError, ZarrStoreError
from zarrstore.metadata import documents
from zarrstore.optional import require

__all__ = ["DocumentReferences", "Reference", "decoded"]

#: How many references one document may generate.
_MOST_GENERATED = 1_000_000
#: Characters of a template, and of what a function of one gives.
_LONGEST = 1 << 14
#: Methods of texts that a template may call, beside `format`.
_METHODS = frozenset({"lower", "upper", "strip", "lstrip", "rstrip", "removeprefix", "removesuffix", "format"})
_FILTERS = frozenset({"abs", "default", "float", "int", "length", "lower", "round", "string", "trim", "upper"})
#: Of a format: a width of four digits or more, one that is an argument, or a field within a field.
_WIDE = re.compile(r"[0-9]{4}|%[^a-zA-Z%]*\*|\{[^{}]*\{[^{]")
_PLAIN = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")


class Reference(NamedTuple):
    """Where the bytes of a value are: a part of a target, or the whole of it.

    Parameters
    ----------
    url : str or None
        The target; None is the one that the reader was given.
    start : int, bytes
        Where the part begins.
    nbytes : int, bytes, optional
        Its length; None is the whole target.
    """

    url: str | None
    start: int = 0
    nbytes: int | None = None


class DocumentReferences:
    """The references of one JSON document.

    Parameters
    ----------
    document : mapping
        Version 0 (keys and values) or version 1 (``{"version": 1, "refs": ...}``).
    label : str
        What errors call the file.
    """

    def __init__(self, document: Mapping[str, Any], label: str) -> None:
        self.label = label
        try:
            self._values = dict(_values(document, label))
        except ZarrStoreError:
            raise
        except (TypeError, ValueError, AttributeError, OverflowError, LookupError) as exc:
            reason = "is no reference file: refs, templates or gen is not of the kind that versions 0 and 1 have"
            raise DamagedStoreError(label, reason) from exc
        self._sorted: list[str] | None = None

    def find(self, key: str) -> bytes | Reference:
        """Return the value, or where it is; KeyError if the document has no such key."""
        return decoded(self._values[key], key, self.label)

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def _names(self) -> list[str]:
        if self._sorted is None:
            self._sorted = sorted(filter(k.is_key, self._values))
        return self._sorted

    def keys(self, path: str) -> Iterator[str]:
        """Yield the keys below a path."""
        names = self._names()
        for at in range(bisect_left(names, k.prefix(path)), len(names)):
            if not k.is_below(names[at], path):
                return
            yield names[at]

    def children(self, path: str) -> Iterator[str]:
        """Return the names of the immediate children of a path. Cost: one search for each child."""
        names = self._names()
        found: dict[str, None] = {}
        at = bisect_left(names, k.prefix(path))
        while at < len(names) and (child := k.child(names[at], path)) is not None:
            found[child] = None
            below = k.join(path, child)
            at = at + 1 if names[at] == below else bisect_left(names, k.beyond(below), at)
        return iter(found)

    def refused(self) -> Iterator[str]:
        """Yield the names of the document that are no keys."""
        return (name for name in self._values if not k.is_key(name))


def decoded(value: Any, key: str, label: str) -> bytes | Reference:
    """Return what a document says of one key: a text, a base64, a JSON document or a reference."""
    if isinstance(value, str):
        if not value.startswith("base64:"):
            return value.encode("utf-8", "surrogatepass")
        try:
            return base64.b64decode(value[7:], validate=True)
        except ValueError as exc:
            raise DamagedStoreError(label, f"has no base64 at {key!r}: {exc}") from exc
    if isinstance(value, Mapping):
        return documents.dumps(value)
    reference = _reference(value)
    if reference is not None:
        return reference
    raise DamagedStoreError(label, f"has {value!r:.80} at {key!r}, which is no text and no [url, offset, length]")


def _reference(value: Any) -> Reference | None:
    """Return what ``[url]`` or ``[url, offset, length]`` refers to; None if the value is neither."""
    if not isinstance(value, list | tuple) or len(value) not in (1, 3) or not isinstance(value[0], str | None):
        return None
    start, nbytes = value[1:] if len(value) == 3 else (0, None)
    if start is None or not all(one is None or (isinstance(one, int) and one >= 0) for one in (start, nbytes)):
        return None
    return Reference(value[0], start, nbytes)


def _values(document: Mapping[str, Any], label: str) -> Iterator[tuple[str, Any]]:
    """Yield the keys of a document with their values, templates filled in."""
    version = document.get("version")
    if version is None and not isinstance(document.get("refs"), Mapping):
        _check_version_0(document, label)
        yield from document.items()
        return
    if version not in (None, 1):
        raise DamagedStoreError(label, f"is a reference file of version {version!r}; versions 0 and 1 are known")
    templates = Templates(document.get("templates") or {}, label)
    for key, value in document.get("refs", {}).items():
        yield key, _filled(value, templates)
    left = _MOST_GENERATED
    for generator in document.get("gen") or ():
        for item in _generated(generator, templates, label, left):
            yield item
            left -= 1


def _check_version_0(document: Mapping[str, Any], label: str) -> None:
    if not document or not all(isinstance(value, str | list | Mapping) for value in document.values()):
        raise DamagedStoreError(label, "is JSON, and no reference file: it has neither keys nor a version")


def _filled(value: Any, templates: Templates) -> Any:
    """Return a value of the document with the templates in its URL filled in."""
    if isinstance(value, list) and value and isinstance(value[0], str) and "{{" in value[0] and templates:
        return [templates.render(value[0]), *value[1:]]
    return value


class Templates:
    """The templates of a document; simple ones are replaced, for all others there is Jinja."""

    def __init__(self, templates: Mapping[str, str], label: str) -> None:
        self.label = label
        self._texts = {name: text for name, text in templates.items() if "{{" not in text}
        self._names: dict[str, Any] = dict(self._texts)
        for name, text in templates.items():
            if "{{" in text:
                self._names[name] = _function(text)
        self._cached = lru_cache(1000)(self._render)

    def __bool__(self) -> bool:
        return bool(self._names)

    def render(self, text: str) -> str:
        """Return a text with its templates filled in."""
        return self._cached(text)

    def _render(self, text: str) -> str:
        names = _PLAIN.findall(text)
        if len(names) == text.count("{{") and all(name in self._texts for name in names):
            return _PLAIN.sub(lambda found: self._texts[found[1]], text)
        return self.render_with(text, {})

    def render_with(self, text: str, more: Mapping[str, Any]) -> str:
        """Return a text with its templates, and other names, filled in by Jinja."""
        try:
            return str(_compiled(text).render(**{**self._names, **more}))
        except ZarrStoreError:
            raise
        except Exception as exc:
            raise DamagedStoreError(self.label, f"has a template that cannot be filled in, {text!r}: {exc}") from exc


def _function(text: str) -> Callable[..., str]:
    def call(**names: Any) -> str:
        # A function that is given to itself could go on for ever, and texts in texts fill the memory.
        if not all(isinstance(one, str | int | float) for one in names.values()):
            raise ValueError("a template is given a text or a number, and nothing else")
        return _short(str(_compiled(text).render(**names)))

    return call


def _short(text: str) -> str:
    if len(text) > _LONGEST:
        raise ValueError(f"more than {_LONGEST:,} characters")
    return text


@lru_cache(256)
def _compiled(text: str) -> Any:
    if "{%" in text:
        raise ValueError("a statement, where an expression is expected")
    return _environment().from_string(_short(text))


@lru_cache(1)
def _environment() -> Any:
    sandbox = require("jinja2.sandbox", extra="references", feature="a reference file with templates")
    jinja = require("jinja2", extra="references", feature="a reference file with templates")

    def refuse_wide(text: Any, method: Any) -> None:
        if method == "format" and isinstance(text, str) and _WIDE.search(text):
            raise sandbox.SecurityError("a format that wide")

    class Environment(sandbox.SandboxedEnvironment):  # type: ignore[misc,name-defined]
        """Refuses what fills the memory by a short text: products, powers, wide formats, most methods."""

        intercepted_binops = frozenset({"*", "**", "%"})

        def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
            return isinstance(obj, str) and attr in _METHODS

        def getattr(self, obj: Any, attribute: str) -> Any:
            refuse_wide(obj, attribute)
            return super().getattr(obj, attribute)

        def getitem(self, obj: Any, argument: Any) -> Any:
            refuse_wide(obj, argument)
            return super().getitem(obj, argument)

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if operator == "%":
                refuse_wide(left, "format")
                return super().call_binop(context, operator, left, right)
            if not isinstance(left, int | float) or not isinstance(right, int | float):
                raise sandbox.SecurityError("a product of what is no number")
            if operator == "**" and (abs(right) > 64 or abs(left) > 1 << 32):
                raise sandbox.SecurityError("a power that large")
            return super().call_binop(context, operator, left, right)

    environment = Environment(undefined=jinja.StrictUndefined)
    environment.globals.clear()
    environment.filters = {name: act for name, act in environment.filters.items() if name in _FILTERS}
    return environment


def _generated(
    generator: Mapping[str, Any], templates: Templates, label: str, most: int
) -> Iterator[tuple[str, list[Any]]]:
    """Yield the references of one entry of ``gen``, `most` of them."""
    try:
        names = list(generator["dimensions"])
        values = [_dimension(generator["dimensions"][name]) for name in names]
        key, url = str(generator["key"]), str(generator["url"])
    except (KeyError, TypeError, ValueError) as exc:
        raise DamagedStoreError(label, f"has an entry of gen that is none: {exc!r}") from exc
    if ("offset" in generator) != ("length" in generator):
        raise DamagedStoreError(label, "has an entry of gen with one of offset and length, and both are needed")
    count = 1
    for one in values:
        count *= len(one)
    if count > most:
        raise DamagedStoreError(label, f"would generate {count:,} references; {_MOST_GENERATED:,} are allowed")
    for chosen in itertools.product(*values):
        more = dict(zip(names, chosen, strict=True))
        part = [int(templates.render_with(str(generator[n]), more)) for n in ("offset", "length") if n in generator]
        yield templates.render_with(key, more), [templates.render_with(url, more), *part]


def _dimension(given: Any) -> list[Any] | range:
    if isinstance(given, list):
        return given
    return range(int(given.get("start", 0)), int(given["stop"]), int(given.get("step", 1)))


def parsed(text: bytes, label: str) -> Mapping[str, Any]:
    """Return a reference file's JSON; DamagedStoreError if it is none."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise DamagedStoreError(label, f"is no JSON: {exc}") from exc
    if not isinstance(document, dict):
        raise DamagedStoreError(label, "is JSON, and no reference file")
    return document


def sizes(found: Iterable[bytes | Reference]) -> list[int]:
    """Return the lengths of values, 0 for those of which only the target knows it."""
    return [len(one) if isinstance(one, bytes) else one.nbytes or 0 for one in found]
