"""What stores and results show in a real Jupyter."""

from __future__ import annotations

import pytest

from tests.support import peers
from tests.support.peers import CHECKOUT

#: A notebook as somebody types it, and what Jupyter made of the last line of each cell.
NOTEBOOK = """
import json, sys
import nbformat
from nbconvert import HTMLExporter
from nbconvert.preprocessors import ExecutePreprocessor

cells = [
    "import zarrstore; store = zarrstore.open_store('legacy.zarr', mode='r'); store",
    "zarrstore.tree(store)",
    "zarrstore.du(store, depth=1)",
    "zarrstore.verify(store)",
    "cache = zarrstore.LRUStoreCache(store, max_size='2GB'); cache",
    "cache.stats()",
    "zarrstore.tree({'<script>alert(1)</script>/.zgroup': b'{\\"zarr_format\\": 2}'})",
]
notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
ExecutePreprocessor(timeout=100).preprocess(notebook, {"metadata": {"path": sys.argv[1]}})
HTMLExporter().from_notebook_node(notebook)
print(json.dumps([cell.outputs[-1].data.get("text/html", "") for cell in notebook.cells]))
"""


@pytest.mark.slow
def test_jupyter_shows_trees_that_fold_and_tables(tmp_path):
    peers.require("jupyter")
    data = CHECKOUT / "tests" / "data" / "v2"
    # Nothing is left in the user's own folder of settings.
    env = {"HOME": str(tmp_path), "JUPYTER_ALLOW_INSECURE_WRITES": "1"}
    store, tree, du, report, cache, stats, evil = peers.run("jupyter", NOTEBOOK, data, env=env)
    assert all(shown.count("<details") >= 4 for shown in (store, tree, cache))
    assert "<b>temperature</b>" in tree
    assert " (24, 18, 30) &lt;f4 in chunks of (6, 9, 16)</span>" in tree
    assert '<td style="text-align:right">62,921</td>' in du
    assert '<td style="text-align:left">ocean</td>' in du
    assert "0 problems" in report
    assert stats
    assert "<script" not in evil
    assert "&lt;script&gt;" in evil
