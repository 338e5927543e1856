"""Packages that are imported only when they are needed."""

from __future__ import annotations

import importlib
from types import ModuleType

from zarrstore.errors import MissingDependencyError

__all__ = ["require"]


def require(module: str, *, extra: str, feature: str) -> ModuleType:
    """Import a module, or say what needs it and how to install it.

    Parameters
    ----------
    module : str
        Dotted name of the module.
    extra : str
        The extra of zarrstore that brings it.
    feature : str
        What needs it, in the user's words (``"LMDBStore"``).

    Raises
    ------
    MissingDependencyError
        The package is not installed. (An error inside an installed package is passed on as it is.)

    Examples
    --------
    >>> require("json", extra="test", feature="this example").__name__
    'json'
    >>> require("no_such_module", extra="cli", feature="the command line")
    Traceback (most recent call last):
    zarrstore.errors.MissingDependencyError: the command line needs no_such_module: pip install zarrstore[cli]
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as exc:
        top = module.partition(".")[0]
        if exc.name is None or exc.name.partition(".")[0] != top:
            raise
        raise MissingDependencyError(feature, top, extra) from exc
