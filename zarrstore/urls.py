"""URLs as they may be shown: in a repr, an error or a log nothing secret stands."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["UserInfo", "fits_xml", "split_userinfo", "with_userinfo", "without_secrets"]

_URL = re.compile(
    r"""(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<user>[^/?#\s'"@]*(?:@[^/?#\s'"@]*)*@)?(?P<rest>[^\s'")]*)"""
)
_HIDDEN = "***"


class UserInfo(NamedTuple):
    """The user and the password of a URL, decoded; None where it has none."""

    user: str | None
    password: str | None


def split_userinfo(url: str) -> tuple[str, UserInfo]:
    """Return a URL without its ``user:password@``, and these.

    Examples
    --------
    >>> split_userinfo("https://me:s%40crt@host/x")
    ('https://host/x', UserInfo(user='me', password='s@crt'))
    >>> split_userinfo("https://host/x@y")
    ('https://host/x@y', UserInfo(user=None, password=None))
    """
    from urllib.parse import unquote  # with what it imports, it takes as long to load as ten modules of ours

    scheme, separator, rest = url.partition("://")
    end = next((at for at, sign in enumerate(rest) if sign in "/?#"), len(rest))
    info, at, host = rest[:end].rpartition("@")
    if not at:
        return url, UserInfo(None, None)
    user, colon, password = info.partition(":")
    bare = f"{scheme}{separator}{host}{rest[end:]}"
    return bare, UserInfo(unquote(user), unquote(password) if colon else None)


def with_userinfo(url: str, info: UserInfo) -> str:
    """Return a URL with a user and a password: the inverse of `split_userinfo`.

    Examples
    --------
    >>> with_userinfo("https://host/x", UserInfo("me", "s@crt")), with_userinfo("https://host", UserInfo(None, None))
    ('https://me:s%40crt@host/x', 'https://host')
    """
    if info.user is None:
        return url
    from urllib.parse import quote

    scheme, separator, rest = url.partition("://")
    password = "" if info.password is None else ":" + quote(info.password, safe="")
    return f"{scheme}{separator}{quote(info.user, safe='')}{password}@{rest}"


def without_secrets(text: str) -> str:
    """Return a URL, or a text that holds URLs, without passwords and without the values of queries.

    Parameters
    ----------
    text : str
        A URL, a chain of them (``simplecache::https://...``), or a sentence. The values of a query are hidden whatever
        their names: signatures and tokens have many.

    Examples
    --------
    >>> without_secrets("ftp://me:secret@host/data"), without_secrets("https://token@host/data")
    ('ftp://me:***@host/data', 'https://***@host/data')
    >>> without_secrets("https://host/x?sv=2024&sig=abc"), without_secrets("s3://bucket/x")
    ('https://host/x?sv=***&sig=***', 's3://bucket/x')
    """
    return _URL.sub(_shown, text)


def _shown(found: re.Match[str]) -> str:
    user, colon, _ = (found["user"] or "")[:-1].partition(":")
    shown_user = "" if found["user"] is None else f"{user}:{_HIDDEN}@" if colon else f"{_HIDDEN}@"
    place, question, query = found["rest"].partition("?")
    parts = [
        f"{name}={_HIDDEN}" if equals else _HIDDEN for name, equals, _ in (p.partition("=") for p in query.split("&"))
    ]
    return f"{found['scheme']}{shown_user}{place}{question}{'&'.join(parts) if question else ''}"


def fits_xml(name: str) -> bool:
    """Tell whether a name can stand in XML 1.0, which the batches of S3 are written in.

    Examples
    --------
    >>> fits_xml("a & b"), fits_xml("a\\x01"), fits_xml("\\uffff")
    (True, False, False)
    """
    # Not a pattern of all that fits: to compile its ranges takes longer than a small command.
    return (name.isascii() and name.isprintable()) or not any(map(_is_no_xml, name))


def _is_no_xml(sign: str) -> bool:
    return (sign < " " and sign not in "\t\n\r") or "\ud800" <= sign <= "\udfff" or sign in "\ufffe\uffff"
