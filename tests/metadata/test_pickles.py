"""Pickles of arrays are read; nothing that a pickle names is imported or called, and no size is believed."""

from __future__ import annotations

import builtins
import functools
import os
import pickle
import struct
import sys
import tracemalloc

import numpy as np
import pytest

from tests.support.cases import each_of
from zarrstore.metadata.chunk import decode_chunk, encode_chunk
from zarrstore.metadata.pickles import load_array
from zarrstore.metadata.v2 import build_array

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def objects(*items):
    """Return a one-dimensional array of these objects."""
    array = np.empty(len(items), dtype=object)
    for at, item in enumerate(items):
        array[at] = item
    return array


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_numpy_pickles_is_read_as_pickle_reads_it(protocol):
    within = np.arange(6).reshape(2, 3)
    array = objects(
        "é", None, True, 1 << 70, 2.5, b"", b"\xff", (1, [2, {"a": ()}]), np.float32(2), np.str_("u"), within
    )
    plain = objects(*array[:-1], within.tolist())
    plain[8], plain[9] = 2.0, "u"
    assert load_array(pickle.dumps(array, protocol)).tolist() == plain.tolist()
    square = objects("a", 1, None, "b", 2, "c").reshape(2, 3)
    for one in (square, np.asfortranarray(square)):
        found = load_array(pickle.dumps(one, protocol))
        assert (found == square).all()
        assert found.flags.f_contiguous == one.flags.f_contiguous
    for one in (np.asfortranarray(within.astype(">i2")), np.array(["a", "bc"]), np.array([b"x"]), np.array(1.5)):
        found = load_array(pickle.dumps(one, protocol))
        np.testing.assert_array_equal(found, one, strict=True)


def test_the_module_names_of_numpy_1_are_known():
    data = pickle.dumps(objects("a", np.int8(3), np.arange(3)), 5)
    old = data.replace(b"\x16numpy._core.multiarray", b"\x15numpy.core.multiarray")
    old = old.replace(b"\x13numpy._core.numeric", b"\x12numpy.core.numeric").replace(b"\x95", b"\x95", 1)
    # The frame is shorter by one byte for each module named.
    length = len(old) - 11
    old = old[:3] + struct.pack("<Q", length) + old[11:]
    assert b"_core" not in old
    assert load_array(old).tolist() == ["a", 3, [0, 1, 2]]


class Reduced:
    """Pickles as a call of anything."""

    def __init__(self, function, *args, state=None):
        self.parts = (function, args) if state is None else (function, args, state)

    def __reduce__(self):
        return self.parts


class Plain:
    """Pickles as an object of a class."""


def touch(path):
    """Leave a trace, if it is ever called."""
    with open(path, "w") as file:
        file.write("run")


def hostile(trace):
    """Return objects whose pickles, read by `pickle.loads`, would run something."""
    return {
        "os.system": Reduced(os.system, f"touch {trace}"),
        "own function": Reduced(touch, trace),
        "eval": Reduced(builtins.eval, f"open({trace!r}, 'w')"),
        "exec": Reduced(builtins.exec, f"open({trace!r}, 'w')"),
        "import": Reduced(__import__, "os"),
        "getattr chain": Reduced(getattr, Reduced(__import__, "os"), "system"),
        "getattr of an allowed class": Reduced(getattr, np.ndarray, "tofile"),
        "partial": Reduced(functools.partial, os.system, f"touch {trace}"),
        "numpy's own loader": Reduced(np.load, trace),
        "numpy's test runner": Reduced(np.testing.assert_equal, 1, 1),
        "a class": Plain(),
        "an array of a subclass": np.ma.array([1]),
        "a record array": np.array([1]).view(np.recarray),
        "a set": {1},
        "a date": np.datetime64("2000-01-01"),
    }


@pytest.mark.parametrize("name", hostile(""))
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_hostile_pickle_is_refused_and_nothing_is_run(name, protocol, tmp_path):
    trace = tmp_path / "trace"
    item = hostile(str(trace))[name]
    pickles = [pickle.dumps(item, protocol), pickle.dumps(objects("a", item), protocol)]
    modules = set(sys.modules)
    for data in pickles:
        with pytest.raises(ValueError, match="the pickle"):
            load_array(data)
    assert not trace.exists()
    assert set(sys.modules) == modules


ARRAY = b"cnumpy._core.multiarray\n_reconstruct\n"
HEAD = ARRAY + b"(cnumpy\nndarray\n(I0\ntS'b'\ntR"
RAW = {
    "os.system by GLOBAL": b"cos\nsystem\n(S'true'\ntR.",
    "posix.system by STACK_GLOBAL": b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.",
    "a dotted name within an allowed module": b"\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93.",
    "a dotted name that leads to os": b"\x80\x04\x8c\x05numpy\x8c\x10testing.os.system\x93\x8c\x04true\x85R.",
    "INST": b"(S'true'\nios\nsystem\n.",
    "OBJ": b"(cos\nsystem\nS'true'\no.",
    "NEWOBJ": b"\x80\x02cnumpy\nndarray\n(I1\nt\x81.",
    "NEWOBJ_EX": b"\x80\x04\x8c\x05numpy\x8c\x07ndarray\x93)}\x92.",
    "an extension code of copyreg": b"\x80\x02\x82\x01.",
    "copyreg's constructor": b"ccopyreg\n_reconstructor\n(cnumpy\nndarray\nc__builtin__\nobject\nNtR.",
    "copyreg's registration": b"ccopyreg\nadd_extension\n(S'os'\nS'system'\nI1\ntR.",
    "copy_reg of Python 2": b"ccopy_reg\n_reconstructor\n(cnumpy\nndarray\nc__builtin__\nobject\nNtR.",
    "a persistent id": b"Pos.system\n.",
    "a persistent id on the stack": b"\x80\x02S'os'\nQ.",
    "a buffer out of band": b"\x80\x05\x97.",
    "attributes of what is named": ARRAY + b"(dS'__call__'\nI1\nsb.",
    "slots of what is named": b"\x80\x02" + ARRAY + b"N}U\x08__code__I1\ns\x86b.",
    "attributes of the array": HEAD + b"(dS'shape'\nI1\nsb.",
    "a call of ndarray": b"cnumpy\nndarray\n(I9\ntR.",
    "an array of another class": ARRAY + b"(cnumpy\ndtype\n(I0\ntS'b'\ntR.",
    "bytes of a number": b"c__builtin__\nbytes\n(I1000000000\ntR.",
    "an encoding that is looked up": b"c_codecs\nencode\n(Vx\nVzlib_codec\ntR.",
    "a dtype of fields": b"cnumpy\ndtype\n(S'V8'\nI0\nI1\ntR.",
    "a dtype by its name": b"cnumpy\ndtype\n(S'object'\nI0\nI1\ntR.",
    "a dtype that says that it is another": b"cnumpy\ndtype\n(S'i8'\nI0\nI1\ntR(I3\nS'<'\nN(S'a'\ntNI-1\nI-1\nI0\ntb.",
    "no array": b"I1\n.",
    "what is named itself": b"cnumpy\nndarray\n.",
    "two pickles": b"I1\n.I2\n.",
    "nothing": b"",
    "no end": b"(l",
    "a stack that is empty": b"R.",
    "a memo that is empty": b"h\x05.",
}


@pytest.mark.parametrize("name", RAW)
def test_an_opcode_that_no_array_needs_is_refused(name, monkeypatch):
    def run(*_):
        raise AssertionError("run")

    monkeypatch.setattr(os, "system", run)
    with pytest.raises(ValueError, match="the pickle"):
        load_array(RAW[name])


def shaped(shape, content, dtype="|O"):
    """Return a pickle of an array whose state says this."""
    array = np.zeros((), dtype)

    class Lying:
        def __reduce__(self):
            function, args, _ = array.__reduce__()
            return function, args, (1, shape, array.dtype, False, content)

    return pickle.dumps(Lying(), 2)


@each_of(
    "data",
    [
        shaped((1 << 40,), []),
        shaped((1 << 61, 1 << 61), []),
        shaped((-1, -1), [1]),
        shaped((2,), [1]),
        shaped((True,), [1]),
        shaped("ab", [1]),
        shaped((1,) * 65, [1]),
        shaped((1,), (1,)),
        shaped((1,), bytes(8)),
        shaped((1 << 40,), b"", "<i8"),
        shaped((2,), bytes(8), "<i8"),
        shaped((1,), [1], "<i8"),
    ],
)
def test_a_shape_is_compared_with_the_data_before_memory_is_taken(data):
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"the pickle (has|holds)"):
            load_array(data)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def bomb(levels):
    """Return a list of two times the same list, `levels` deep: 2**levels items in a few hundred bytes."""
    item = ["x"]
    for _ in range(levels):
        item = [item, item]
    return item


def loop():
    """Return a list that holds itself."""
    item = []
    item.append(item)
    return item


def nested(levels):
    """Return lists within lists."""
    item = []
    for _ in range(levels):
        item = [item]
    return item


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps(objects(bomb(40)), 2),
        pickle.dumps(objects(loop()), 2),
        pickle.dumps(objects(nested(300)), 2),
        b"(lr\xff\xff\xff\x7f.",  # a memo of two thousand million places
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b".",  # a byte array of a terabyte
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b".",  # bytes of a terabyte
        b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + b"N.",  # a frame of a terabyte
        b"\x8b" + struct.pack("<i", 1 << 30) + b".",  # a number of a thousand million bytes
    ],
)
def test_memory_is_bounded_by_the_data_and_not_by_what_it_says(data):
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="the pickle"):
            load_array(data, max_items=10_000)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_every_byte_changed_is_an_error_or_an_array_and_nothing_else():
    data = pickle.dumps(objects("a", (1, 2.5), np.int8(1)), 4)
    outcomes = set()
    for at in range(len(data)):
        for value in (0, 0x2E, 0x52, 0x62, 0x93, data[at] ^ 1):
            try:
                outcomes.add(type(load_array(data[:at] + bytes([value]) + data[at + 1 :])))
            except ValueError:
                outcomes.add(ValueError)
    assert outcomes == {np.ndarray, ValueError}


def test_a_chunk_of_pickles_is_decoded_only_when_that_is_asked_for():
    meta = build_array(
        shape=2, chunks=2, dtype="O", object_codec={"id": "pickle"}, compressor={"id": "zlib", "level": 1}
    )
    data = encode_chunk(objects("a", None), meta)
    with pytest.raises(ValueError, match="pickle is not decoded"):
        decode_chunk(data, meta)
    assert decode_chunk(data, meta, pickles=True).tolist() == ["a", None]


@each_of(
    ("codec", "data"),
    [
        ("json2", b'[1,"|O",[1000000000000]]'),
        ("json2", b'[1,2,"|O",[3]]'),
        ("json2", b'[[1],[2,3],"|O",[2,1]]'),
        ("json2", b'["a","<U1000000000",[2]]'),
        ("json2", b'{"a":1}'),
        ("json2", b"[]"),
        ("json2", b"[" * 100_000),
        ("msgpack2", b"\x93\x01\xa2|O\x91\xcf\x00\x00\x01\x00\x00\x00\x00\x00"),
        ("msgpack2", b"\xdd\xff\xff\xff\xff"),
        ("json", b'[1,2,3,"|O"]'),
    ],
)
def test_a_chunk_of_json_or_msgpack_is_not_believed_either(codec, data):
    meta = build_array(shape=2, chunks=2, dtype="O", object_codec={"id": codec}, compressor=None)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="cannot decode it"):
            decode_chunk(data, meta)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("codec", "data"), [("json", b'[["a",[1]],[null,2],"|O"]'), ("msgpack", b"\x93\x92\xa1a\x91\x01\x92\xc0\x02\xa2|O")]
)
def test_what_numcodecs_wrote_before_0_6_without_a_shape_is_read(codec, data):
    meta = build_array(shape=(2, 2), chunks=(2, 2), dtype="O", object_codec={"id": codec}, compressor=None)
    assert decode_chunk(data, meta).tolist() == [["a", [1]], [None, 2]]
