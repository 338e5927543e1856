"""A store in a notebook: what it is, and its tree."""

from __future__ import annotations

from zarrstore.base import Store
from zarrstore.errors import NodeNotFoundError, UnsupportedOperation, ZarrStoreError
from zarrstore.shown import STYLE, escape, table_html
from zarrstore.tools.tree import TreeNode, tree

__all__ = ["html_of"]

#: Arrays whose chunks are looked at, and levels that are shown.
_ARRAYS, _LEVELS = 50, 4
#: Names at the root of what is no hierarchy.
_NAMES = 50


def html_of(store: Store) -> str:
    """Return a store as HTML: its name, and below it the arrays and groups with their sizes, as a tree that folds.

    Notes
    -----
    Cost: as `tree` for four levels. Sizes are looked at where the store is on this machine and has at most 50 arrays.

    Examples
    --------
    >>> from zarrstore import DictStore, init_array
    >>> store = DictStore()
    >>> init_array(store, shape=4, path="<b>")
    >>> "&lt;b&gt;" in html_of(store), "<b>&lt;" in html_of(store)
    (True, True)
    """
    title = f'<div style="{STYLE}"><b>{escape(repr(store))}</b></div>'
    try:
        root = tree(store, depth=_LEVELS)
        # A store that says it is concurrent waits for a network.
        if not store.capabilities.concurrent and _n_arrays(root) <= _ARRAYS:
            root = tree(store, depth=_LEVELS, sizes=True)
        return title + root._repr_html_()
    except NodeNotFoundError:
        names = store.listdir("")
        more = f" and {len(names) - _NAMES:,} more" if len(names) > _NAMES else ""
        rows = [(name,) for name in names[:_NAMES]]
        return title + table_html(f"no hierarchy, {len(names):,} names at the root{more}", ("name",), rows)
    except UnsupportedOperation:
        return title
    except (ZarrStoreError, OSError) as exc:
        return title + f'<div style="{STYLE}">{escape(exc)}</div>'


def _n_arrays(node: TreeNode) -> int:
    is_array = node.node is not None and node.node.kind == "array"
    return is_array + sum(map(_n_arrays, node.children))
