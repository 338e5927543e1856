"""How Sphinx builds the manual: ``python -m sphinx -W -b html docs docs/_build/html``."""

import re
from pathlib import Path

import zarrstore

project = "zarrstore"
author = "zarrstore developers"
project_copyright = "2026, zarrstore developers"
release = version = zarrstore.__version__
extensions = ["sphinx.ext.autodoc", "sphinx.ext.intersphinx", "sphinx.ext.viewcode", "numpydoc"]
html_theme = "furo"
html_title = f"zarrstore {release}"
exclude_patterns = ["_build", "screens"]
# Single backquotes stand for code, as numpydoc reads them for parameters.
default_role = "code"
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
# The build needs no network.
intersphinx_mapping: dict[str, tuple[str, None]] = {}


def _section(home: str, name: str) -> str:
    if name.endswith("Error") or home == "zarrstore.errors":
        return "Errors"
    if home in ("zarrstore.adapt", "zarrstore.base", "zarrstore.driver"):
        return "The contract"
    rooms = {"zarrstore.stores": "Stores", "zarrstore.wrappers": "Wrappers"}
    return next((title for room, title in rooms.items() if home.startswith(room)), "Verbs")


def _pages(folder: Path) -> dict[str, str]:
    """Return which classes have a page of their own, and where."""
    found = {}
    for page in sorted(folder.glob("*/*.rst")):
        for name in re.findall(r"^.. autoclass:: (\w+)", page.read_text(encoding="utf-8"), re.MULTILINE):
            found[name] = f"{page.parent.name}/{page.stem}"
    return found


def _write_api(path: Path) -> None:
    """Write the page of all public names, so that none is forgotten."""
    pages = _pages(path.parent)
    sections: dict[str, list[str]] = {title: [] for title in ("Stores", "Wrappers", "Verbs", "The contract", "Errors")}
    for name, home in sorted(zarrstore._HOMES.items()):
        title = _section(home, name)
        directive = "autofunction" if name[0].islower() else "autoexception" if title == "Errors" else "autoclass"
        sections[title].append(
            f"- :doc:`{name} <{pages[name]}>`\n" if name in pages else f"\n.. {directive}:: {name}\n\n"
        )
    text = (
        "The names of zarrstore\n======================\n\nEach is a name of ``zarrstore``, loaded when it is used.\n"
    )
    for title, entries in sections.items():
        text += f"\n{title}\n{'-' * len(title)}\n\n.. currentmodule:: zarrstore\n\n{''.join(entries)}"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


_write_api(Path(__file__).with_name("api.rst"))
