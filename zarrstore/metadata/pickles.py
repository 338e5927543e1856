"""Pickled arrays read without running anything that they name: NumPy's arrays, numbers and Python's plain values."""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

__all__ = ["load_array"]

_NUMBERS = "INT LONG LONG1 LONG4 BININT BININT1 BININT2 FLOAT BINFLOAT NONE NEWTRUE NEWFALSE"
_BYTES = "STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8"
_TEXTS = "UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8"
_CONTAINERS = (
    "EMPTY_LIST APPEND APPENDS LIST EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT DICT SETITEM SETITEMS MARK POP"
)
_MEMO = "PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET"
_CALLS = "GLOBAL STACK_GLOBAL REDUCE BUILD PROTO FRAME STOP"
_OPCODES = frozenset(" ".join((_NUMBERS, _BYTES, _TEXTS, _CONTAINERS, _MEMO, _CALLS)).split())
#: What a pickle may name, and what it is here.
_GLOBALS = {
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    # How protocols 0 to 2 say bytes, and no bytes.
    ("_codecs", "encode"): "encode",
    ("__builtin__", "bytes"): "bytes",
    **{
        (f"numpy.{core}.{module}", name): name
        for core in ("core", "_core")
        for module, name in (("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numeric", "_frombuffer"))
    },
}
_KINDS = "biufcSU"
_MAX_NDIM = 64
_MAX_DEPTH = 64


def load_array(data: Any, max_items: int = 1 << 26) -> np.ndarray[Any, Any]:
    """Return the array that a pickle holds, its objects as plain Python values.

    Parameters
    ----------
    data : bytes-like
        What `pickle.dumps` makes of an array, by any protocol, with NumPy 1 or 2.
    max_items : int
        Of all its lists, tuples, dictionaries and arrays together, each as often as it is referred to.

    Returns
    -------
    numpy.ndarray
        Objects among its items are None, booleans, numbers, text, bytes, and lists, tuples and dictionaries of these.
        An array within is a list, a scalar of NumPy a number.

    Raises
    ------
    ValueError
        It is damaged, names anything but an array, a dtype or a scalar of NumPy, or holds more than `max_items`.

    Notes
    -----
    Nothing that a pickle names is imported or called: stand-ins collect the arguments, and the arrays are made of them
    here, each size compared with the data that is there. All opcodes are judged before the first is obeyed: objects by
    class, persistent ids and extension codes are refused, and so are memo numbers beyond the number of opcodes, for
    which Python would allocate memory. Memory: a few times `data`. Source: the pickle protocols 0 to 5.

    Examples
    --------
    >>> import numpy as np
    >>> load_array(pickle.dumps(np.array(["a", None, (1, 2.5)], dtype=object))).tolist()
    ['a', None, (1, 2.5)]
    >>> load_array(b"cos\\nsystem\\n(S'echo'\\ntR.")
    Traceback (most recent call last):
    ValueError: the pickle names os.system, which is no array, dtype or number of NumPy
    """
    raw = bytes(data)
    try:
        _check_opcodes(raw)
        found = _Unpickler(io.BytesIO(raw)).load()
        if not isinstance(found, _Array):
            raise ValueError(f"the pickle holds {_kind(found)}, and an array is expected")
        return found.array(_Budget(max_items), 0)
    except RecursionError:
        raise ValueError(f"the pickle is nested deeper than {_MAX_DEPTH} levels") from None
    except ValueError:
        raise
    except Exception as exc:  # the unpickler raises what it likes: UnpicklingError, EOFError, AttributeError ...
        raise ValueError(f"the pickle is damaged: {exc}") from exc


def _check_opcodes(raw: bytes) -> None:
    largest, count, end = -1, 0, 0
    # genops reads each argument in full, so that a length beyond the data is an error before anything is allocated.
    for opcode, argument, position in _opcodes(raw):
        count += 1
        if opcode.name not in _OPCODES:
            raise ValueError(f"the pickle has the opcode {opcode.name}, which no array needs")
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT"):
            largest = max(largest, argument)
        if opcode.name == "GLOBAL":
            module, _, name = argument.partition(" ")
            _check_global(module, name)
        end = position or 0
    if largest > count:
        raise ValueError(f"the pickle numbers an object {largest:,} and has {count:,} opcodes")
    if end + 1 != len(raw):
        raise ValueError(f"{len(raw) - end - 1:,} bytes lie behind the end of the pickle")


def _opcodes(raw: bytes) -> Iterator[tuple[pickletools.OpcodeInfo, Any, int | None]]:
    try:
        yield from pickletools.genops(raw)
    except ValueError as exc:
        raise ValueError(f"the pickle is damaged: {exc}") from exc


def _check_global(module: str, name: str) -> str:
    if (module, name) not in _GLOBALS:
        raise ValueError(f"the pickle names {module}.{name}, which is no array, dtype or number of NumPy")
    return _GLOBALS[module, name]


class _Unpickler(pickle.Unpickler):
    """Gives stand-ins for what a pickle names."""

    def find_class(self, module: str, name: str) -> Any:
        return _Global(_check_global(module, name))

    def persistent_load(self, pid: Any) -> Any:
        raise ValueError("the pickle refers to an object outside it")


def _kind(value: object) -> str:
    return f"{value.name} itself" if isinstance(value, _Global) else f"a {type(value).__name__}"


class _Global:
    """What a pickle calls. One for each mention, without attributes: a pickle can change none of them."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *arguments: Any) -> Any:
        return _CALLABLE[self.name](*arguments)

    def __setstate__(self, state: Any) -> None:
        raise ValueError(f"the pickle sets attributes of {self.name}")


class _Type:
    """A dtype: its code, and the byte order that its state says."""

    __slots__ = ("code", "order")

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or code[:1] not in (*_KINDS, "O") or not code[1:].isdecimal():
            raise ValueError(f"the pickle has the dtype {code!r}, which is not read here")
        self.code = code
        self.order = "|"

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
            raise ValueError(f"the pickle has a dtype {self.code!r} of fields, which is not read here")
        if state[1] not in ("<", ">", "|", "="):
            raise ValueError(f"the pickle has the byte order {state[1]!r}")
        self.order = state[1]

    def dtype(self) -> np.dtype[Any]:
        import numpy as np

        return np.dtype("O" if self.code[0] == "O" else self.order + self.code)


class _Budget:
    """How many items may still come."""

    def __init__(self, most: int) -> None:
        self.most = self.left = most

    def take(self, count: int, depth: int) -> None:
        self.left -= count
        if self.left < 0:
            raise ValueError(f"the pickle holds more than {self.most:,} items")
        if depth > _MAX_DEPTH:
            raise ValueError(f"the pickle is nested deeper than {_MAX_DEPTH} levels")


class _Array:
    """An array: what its state says, not yet believed."""

    __slots__ = ("content", "fortran", "shape", "type")

    def __init__(self) -> None:
        self.shape: Any = (0,)
        self.type: Any = None
        self.fortran: Any = False
        self.content: Any = b""

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise ValueError("the pickle has an array of unknown state")
        _, self.shape, self.type, self.fortran, self.content = state

    def array(self, budget: _Budget, depth: int) -> np.ndarray[Any, Any]:
        """Return the array, having compared its shape with what is there."""
        import numpy as np

        shape = self.shape
        if not _is_shape(shape) or not isinstance(self.type, _Type):
            raise ValueError(f"the pickle has an array of shape {shape!r} and {_kind(self.type)} for its dtype")
        count, dtype = math.prod(shape), self.type.dtype()
        budget.take(count, depth)
        order: Any = "F" if self.fortran else "C"
        if dtype.kind != "O":
            return self._items(count, dtype).reshape(shape, order=order)
        # Whatever the order in memory, the list of objects is in that of the axes.
        return np.asarray(self._objects(count, budget, depth).reshape(shape), order=order)

    def _items(self, count: int, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
        import numpy as np

        content = self.content
        if not isinstance(content, bytes | bytearray) or len(content) != count * dtype.itemsize:
            raise ValueError(f"the pickle has an array of shape {self.shape!r} and {dtype}, and other data for it")
        return np.frombuffer(content, dtype) if count and dtype.itemsize else np.zeros(count, dtype)

    def _objects(self, count: int, budget: _Budget, depth: int) -> np.ndarray[Any, Any]:
        import numpy as np

        if not isinstance(self.content, list) or len(self.content) != count:
            raise ValueError(f"the pickle has an array of {count:,} objects, and other data for it")
        items = np.empty(count, dtype=object)
        for at, value in enumerate(self.content):
            items[at] = _plain(value, budget, depth + 1)
        return items


def _is_shape(shape: Any) -> bool:
    if not isinstance(shape, tuple) or len(shape) > _MAX_NDIM:
        return False
    return all(type(size) is int and 0 <= size < 1 << 62 for size in shape)


def _plain(value: Any, budget: _Budget, depth: int) -> Any:
    """Return a value without stand-ins; each reference counts, so that lists of lists of one list come to an end."""
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return value
    if isinstance(value, bytearray):
        return bytes(value)
    if isinstance(value, _Array):
        return value.array(budget, depth).tolist()
    if isinstance(value, list | tuple | dict):
        budget.take(len(value), depth)
        if isinstance(value, dict):
            return {_key(key): _plain(one, budget, depth + 1) for key, one in value.items()}
        return type(value)(_plain(one, budget, depth + 1) for one in value)
    raise ValueError(f"the pickle holds {_kind(value)} among its values")


def _key(key: Any) -> Any:
    if not isinstance(key, bool | int | float | str | bytes):
        raise ValueError(f"the pickle holds {_kind(key)} as the key of a dictionary")
    return key


def _reconstruct(subtype: Any, *_: Any) -> _Array:
    if not isinstance(subtype, _Global) or subtype.name != "ndarray":
        raise ValueError("the pickle has an array of another class than numpy.ndarray")
    return _Array()


def _from_buffer(content: Any, of: Any, shape: Any, order: Any) -> _Array:
    found = _Array()
    found.__setstate__((1, shape, of, order == "F", content))
    return found


def _scalar(of: Any, content: Any = None) -> Any:
    if not isinstance(of, _Type) or of.code[0] == "O":
        raise ValueError("the pickle has a scalar that is no number and no text")
    return _from_buffer(content, of, (1,), "C").array(_Budget(1), 0).tolist()[0]


def _encode(text: Any, encoding: Any = None) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise ValueError(f"the pickle encodes a text by {encoding!r}")
    return text.encode("latin-1")


def _no_bytes(*arguments: Any) -> bytes:
    if arguments:
        raise ValueError("the pickle makes bytes of something else")
    return b""


def _no_array(*_: Any) -> Any:
    raise ValueError("the pickle calls numpy.ndarray")


_CALLABLE = {
    "_reconstruct": _reconstruct,
    "dtype": _Type,
    "scalar": _scalar,
    "_frombuffer": _from_buffer,
    "encode": _encode,
    "bytes": _no_bytes,
    "ndarray": _no_array,
}
