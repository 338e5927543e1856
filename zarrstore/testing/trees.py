"""Keys and values that bite: the tree that every store must hold, and the names that none may take."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from zarrstore.keys import RESERVED

__all__ = ["HOSTILE_KEYS", "ODD_NAMES", "SEGMENTS", "TREE", "tree"]

#: A store must hold exactly this, under exactly these names. Each key is here because some store got it wrong.
TREE: Mapping[str, bytes] = MappingProxyType(
    {
        ".zgroup": b'{\n    "zarr_format": 2\n}',
        "foo/bar": b"1",
        "foo/oof/x": b"22",  # made of the letters of "foo": what lstrip eats
        "foo/foo/foo": b"333",
        "foobar/x": b"4444",  # begins with "foo", lies beside it
        "foo.bar/x": b"55555",  # "." sorts before "/"
        "foo-bar": b"666666",
        "foo0/x": b"7777777",  # "0" is the character after "/"
        "uns/names": b"88888888",
        "a_c/x": b"wildcard _",
        "aXc/x": b"what _ would match",
        "a%c/x": b"wildcard %",
        "a b c/d": b"spaces",
        "[a-z]*?/x": b"glob",
        "é/x": b"one code point",
        "e\u0301/x": b"two code points",
        "日本/語": b"wide",
        "deep/1/2/3/4/5/6/7/8": b"deep",
        "c/.zarray": b"{}",
        "c/0.0": b"",
        "c/10.2": b"\x00" * 7,
        "c/9.10": bytes(range(256)),
        "line\nbreak": b"a control character is no separator",
        "~": b"home",
        "-r": b"option",
        "con.txt": b"a device elsewhere",
        "big/value": bytes(range(256)) * 4096,
    }
)


def tree(largest: int = 1 << 20) -> dict[str, bytes]:
    """Return `TREE` as a dict, its values cut to `largest` bytes.

    Examples
    --------
    >>> tree()["foo/oof/x"], len(tree(100)["big/value"])
    (b'22', 100)
    """
    return {key: value[:largest] for key, value in TREE.items()}


#: Names from which the state machine makes its keys: each is a prefix, wildcard or neighbour in order of another.
SEGMENTS = ("a", "ab", "a.b", "a-", "a0", "a_", "aX", "a%", "A", "é", "0", "1.0", ".zarray", "b")

#: Names that are keys, and that some backend takes for one another: white space is trimmed, case is folded, text is
#: normalised, an escape is decoded, what follows a sign is cut off, or a long name is cut.
ODD_NAMES = (
    *("a", " a", "a ", " a ", "a\t", "\ta", "a\n", "a\r\n", "a\u00a0", "a\u200b", "\ufeffa", "a\u2028"),
    *("A", "aa", "aA", "Aa", "\u00e9", "e\u0301", "\u00c9", "\u212b", "\u00c5", "A\u030a", "\ufb01", "fi"),
    *("\u1e9e", "ss", "\u00df", "\u0130", "i\u0307", "\u0131", "\u03c2", "\u03c3", "\uff41", "\U0001f600"),
    *("a.", "a..", ".a", "..a", "...", "a%20", "a%2Fb", "a%2fb", "%61", "%", "%%", "a+", "a b", "a+b", "a&amp;b"),
    *("a?", "a?b=c", "a#", "a#b", "a;b", "a=b", "a@b", "a~", "~", "~a", "$a", "${a}", "`a`", "!a", "a*", "[a]", "{a}"),
    *("'a'", '"a"', "a'--", "a,b", "a|b", "<a>", "a:b", "-a", "--", "0", "00", "0.0", "1e3", "1_0", "null", "None"),
    *("nul", "con", "aux.txt", "com1", "x" * 254, "x" * 255, "x" * 254 + "y", "\u00e9" * 127, "\x01", "\x7f"),
    # what XML cannot say, which servers and their clients speak
    *("\x0b", "a\x1b[0m", "\ufffe", "\uffff", "&#1;", "]]>", "<!--"),
)

_LONG = "x" * 300
_BASES = ("foo", "foo/bar", "a/b/c")
_BAD_SEGMENTS = (".", "..", "")

#: At least 200 names that no store may take: setting one raises InvalidKeyError before any I/O, reading one is absent.
HOSTILE_KEYS: tuple[object, ...] = (
    # what is not text
    *(None, 0, 1, -1, 2.5, True, b"foo", b"", (), ("foo",), frozenset(), object, Ellipsis),
    *([], {}, bytearray(b"foo"), {"foo"}),
    # dots and emptiness, alone, at either end and in the middle
    *_BAD_SEGMENTS,
    *(f"{bad}/{base}" for bad in _BAD_SEGMENTS for base in _BASES),
    *(f"{base}/{bad}" for bad in _BAD_SEGMENTS for base in _BASES),
    *(f"foo/{bad}/bar" for bad in _BAD_SEGMENTS),
    *(f"{a}/{b}" for a in _BAD_SEGMENTS for b in _BAD_SEGMENTS),
    *("../" * n + "x" for n in range(1, 13)),
    *("../" * n + "etc/passwd" for n in range(1, 13)),
    *("x/" * n + "../" * (n + 1) + "y" for n in range(1, 9)),
    *("x/" * n + "../" * n + "y" for n in range(1, 9)),
    *("./" * n + "x" for n in range(1, 9)),
    *("/" * n for n in range(1, 9)),
    *("/" * n + "x" for n in range(1, 9)),
    *("x" + "/" * n for n in range(1, 9)),
    *("x" + "/" * n + "y" for n in range(2, 9)),
    # absolute places
    *("/x/../y", "/../x", "//../x", "/./x", "//./x", "a//../b", "a/.//b", "..//x", ".//.."),
    *("/etc/passwd", "/proc/self/mem", "/dev/null", "/dev/zero", "/tmp", "/usr/x", "//host/share", "/."),
    *("file:///etc/passwd", "http://127.0.0.1/x", "s3://bucket/key", "zip://a::b//c"),
    # another system's separators, drives and devices
    *("\\", "a\\b", "..\\x", "\\\\host\\share\\x", "a/..\\..\\b", "\\x", "x\\", "\\\\?\\C:\\x", "\\\\.\\COM1"),
    *(f"{drive}:{rest}" for drive in "cCdZ" for rest in ("", "x", "/x", "\\x", "/../x")),
    # NUL and what is not text after all
    *("\0", "a\0b", "a/\0", "\0/a", "a\0/../../b", "foo/bar\0", "foo\0/bar", ".zarray\0", "\0.zarray"),
    *("\ud800", "a\udfff", "\udc80/x", "foo/\udcff", "a/\ud83d/b", "\udce9", "x\ud800y"),
    # names that the stores keep for themselves
    *(RESERVED, f"{RESERVED}-0", f"foo/{RESERVED}", f"foo/{RESERVED}.tmp", f"{RESERVED}/x", f"a/{RESERVED}-1/b"),
    # long, and wrong only at the end
    *(f"{_LONG}/..", f"{_LONG}/", f"/{_LONG}", f"{_LONG}\0", f"{'d/' * 500}..", f"{'../' * 500}x", f"{'d/' * 2000}"),
)
