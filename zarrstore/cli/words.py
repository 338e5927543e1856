"""What the library says in the words of Python, in those of the command line."""

from __future__ import annotations

import re

__all__ = ["in_words"]

#: What the library says to a caller in Python -> what the command line says.
_WORDS = (
    (re.compile(r"zarrstore\.ZipStore\.recover\('([^']*)'\) keeps them"), r"zarrstore recover \1 keeps them"),
    # No option of the command line begins an archive anew, and the file may be of another kind.
    (re.compile(r"; mode='w' begins a new archive"), ""),
    (re.compile(r"\b(?:rmdir|delitems)\('([^']*)'\)"), r"zarrstore rm TARGET \1"),
    (re.compile(r"\b([a-z][a-z_]*)=True\b"), lambda match: f"--{match[1].replace('_', '-')}"),
    (re.compile(r"\b([a-z][a-z_]*)=(?:'([^']*)'|([0-9]+))"), lambda match: _option(match)),
    (re.compile(r"\b[A-Z]\w*Store\('([^']*)'(?:, [^()]*)?\)"), r"\1"),
    (re.compile(r"\b[A-Z]\w*Store\(<[^>]*>\)"), "the store"),
    (re.compile(r"\bZipStore\(ValueRanges\(([^()]*), '([^']*)'\)(?:, [^()]*)?\)"), r"\1/\2"),
    # A wrapper around one of them.
    (re.compile(r"\b[A-Z]\w*Store\(([^()]*)\)"), r"\1"),
)


def _option(match: re.Match[str]) -> str:
    return f"--{match[1].replace('_', '-')} {match[2] if match[2] is not None else match[3]}"


def in_words(text: str) -> str:
    """Return a sentence of the library as the command line says it.

    Examples
    --------
    >>> in_words("HTTPStore('http://host/x') cannot be listed; pass overwrite=True")
    'http://host/x cannot be listed; pass --overwrite'
    """
    for pattern, words in _WORDS:
        text = pattern.sub(words, text)
    return text
