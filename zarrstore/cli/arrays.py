"""Values of an array as text and as JSON, with their statistics, for ``head`` and ``dump``."""

from __future__ import annotations

from typing import Any

from zarrstore.shown import printable

__all__ = ["summary_of", "values_text"]


def values_text(values: Any, *, whole: bool = False) -> str:
    """Return the values as NumPy prints them; with `whole`, all of them."""
    import numpy as np

    limit = values.size + 1 if whole else 1000
    text = np.array2string(values, threshold=limit, max_line_width=120)
    return "\n".join(map(printable, text.splitlines()))


def summary_of(array: Any, *, values: bool) -> dict[str, Any]:
    """Return shape, dtype and statistics of some values, and the values themselves if they are wanted."""
    import numpy as np

    facts: dict[str, Any] = {"shape": list(array.shape), "dtype": str(array.dtype)}
    if array.size and array.dtype.kind in "biuf":
        numbers = array[np.isfinite(array)] if array.dtype.kind == "f" else array
        if array.dtype.kind == "f":
            facts["nan"] = int(np.isnan(array).sum())
        if numbers.size:
            facts |= {"min": numbers.min().item(), "max": numbers.max().item(), "mean": float(numbers.mean(dtype="f8"))}
    if values:
        facts["values"] = _plain(array.tolist())
    return facts


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
