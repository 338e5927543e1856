"""Which keys a user means by prefixes and globs, as rsync and rclone take them."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["Globs"]


class Globs:
    """Keys that no exclude matches and, if there are includes, at least one of them matches.

    Parameters
    ----------
    includes, excludes : sequence of str
        ``*`` and ``?`` stand for characters of one name, ``**`` for any, ``[abc]`` for one of some. A pattern matches
        whole names, at any level, or from the root if it begins with ``/``; what is below a directory that it matches
        is matched too, so that a path is a pattern of all below it.

    Examples
    --------
    >>> globs = Globs(includes=["/ocean", "*.json"], excludes=[".z*"])
    >>> [globs.take(key) for key in ("ocean/t/0.0", "ocean/t/.zarray", "land/zarr.json", "land/ocean/0")]
    [True, False, True, False]
    """

    def __init__(self, includes: Sequence[str] = (), excludes: Sequence[str] = ()) -> None:
        self.includes = tuple(includes)
        self.excludes = tuple(excludes)
        self._includes = [_compiled(pattern) for pattern in includes]
        self._excludes = [_compiled(pattern) for pattern in excludes]

    def take(self, key: str) -> bool:
        """Tell whether a key, relative to the path that is copied, is meant."""
        if self._includes and not any(pattern.search(key) for pattern in self._includes):
            return False
        return not any(pattern.search(key) for pattern in self._excludes)


_TOKEN = re.compile(r"\*\*/?|\*|\?|\[!?\]?[^]]*\]|.", re.DOTALL)


def _compiled(pattern: str) -> re.Pattern[str]:
    body = pattern.strip("/")
    if not body:
        raise ValueError(f"{pattern!r} matches nothing: a pattern is a path or a glob")
    start = "^" if pattern.startswith("/") else "(?:^|/)"
    end = "/" if pattern.endswith("/") else "(?:/|$)"
    return re.compile(start + "".join(map(_token, _TOKEN.findall(body))) + end, re.DOTALL)


def _token(token: str) -> str:
    if token == "**/":
        return "(?:.*/)?"
    simple = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
    if token in simple:
        return simple[token]
    if len(token) > 2 and token.startswith("["):
        negated = token.startswith("[!")
        members = token[2 if negated else 1 : -1].replace("\\", "\\\\").replace("^", "\\^").replace("]", "\\]")
        return f"[{'^/' if negated else ''}{members}]"
    return re.escape(token)
