"""Parts of one value: which of them are best read together, and how each is cut out again.

A *span* is ``(start, stop)`` in bytes from the start of a value; a `stop` of None is its end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

__all__ = ["ATTEMPTS", "Span", "coalesce", "read_spans", "read_suffix"]

Span = tuple[int, int | None]

#: Bytes between two spans that are read with them rather than asked for apart: what a remote store sends in the time
#: of one question more.
GAP = 64 << 10
#: The most that spans read together may take, unless one alone takes more.
RUN = 16 << 20
#: How often a value is read anew that another writer replaces between two questions about it.
ATTEMPTS = 5


def coalesce(spans: Sequence[Span], gap: int = GAP, most: int = RUN) -> list[tuple[Span, list[int]]]:
    """Return the runs of spans that are best read as one.

    Parameters
    ----------
    spans : sequence of (start, stop), bytes
        Parts of one value, in any order.
    gap : int, bytes
        Spans are read together if at most so much lies between them.
    most : int, bytes
        A run gets no longer than this by a span that joins it.

    Returns
    -------
    list of ((start, stop), indices)
        What to read, and which of `spans` lie in it. Each index stands once; empty spans stand in no run.

    Examples
    --------
    >>> coalesce([(0, 10), (100, 110), (5, 20), (90, 90)], gap=8)
    [((0, 20), [0, 2]), ((100, 110), [1])]
    >>> coalesce([(0, 10), (12, None)], gap=8)
    [((0, None), [0, 1])]
    """
    runs: list[tuple[Span, list[int]]] = []
    order = sorted(range(len(spans)), key=lambda i: spans[i][0])
    for i in order:
        start, stop = spans[i]
        if stop is not None and stop <= start:
            continue
        if runs:
            (first, last), members = runs[-1]
            if last is None or (start - last <= gap and (start < last or stop is None or stop - first <= most)):
                longest = None if last is None or stop is None else max(last, stop)
                runs[-1] = (first, longest), [*members, i]
                continue
        runs.append(((start, stop), [i]))
    return runs


def read_spans(
    read: Callable[[int, int | None], bytes], spans: Sequence[Span], gap: int = GAP, most: int = RUN
) -> list[bytes]:
    """Return the parts of a value for `spans`, by one ``read(start, stop)`` for each run of `coalesce`.

    Notes
    -----
    Where all spans are empty, an empty range is read still: only that tells an absent value.

    Examples
    --------
    >>> read_spans(lambda start, stop: b"0123456789"[start:stop], [(7, None), (0, 2), (3, 3), (1, 4)])
    [b'789', b'01', b'', b'123']
    """
    parts = [b""] * len(spans)
    runs = coalesce(spans, gap, most)
    if not runs and spans:
        read(spans[0][0], spans[0][0])
    for (first, last), members in runs:
        data = read(first, last)
        for i in members:
            start, stop = spans[i]
            parts[i] = data[start - first : None if stop is None else stop - first]
    return parts


def read_suffix(n: int, nbytes: Callable[[], int], read: Callable[[int, int | None], bytes]) -> bytes:
    """Return the last `n` bytes of a value, for a store that is asked for its size and then for a part.

    Parameters
    ----------
    n : int, bytes
        How many; less if the value has less.
    nbytes : callable
        Returns the size; raises KeyError if the value is absent.
    read : callable
        ``read(start, stop)``: a part, clipped at the end.

    Notes
    -----
    A part that reaches the end after as many bytes as the size promised is of a value of that size, and so its end.
    Any other is of a value that was replaced between the two questions: it is asked anew, and at last read whole.

    Examples
    --------
    >>> read_suffix(3, lambda: 10, lambda start, stop: b"0123456789"[start:stop])
    b'789'
    """
    for _ in range(ATTEMPTS):
        size = nbytes()
        start = max(0, size - n)
        part = read(start, None) if start < size else b""
        if len(part) == size - start:
            return part
    value = read(0, None)
    return value[max(0, len(value) - n) :]
