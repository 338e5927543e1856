"""How Sphinx builds the manual: ``python -m sphinx -W -b html docs docs/_build/html``."""

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
