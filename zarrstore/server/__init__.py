"""Stores on the web, for reading: `make_app` is an ASGI application, ``zarrstore serve`` runs it."""

from __future__ import annotations

from zarrstore.server.app import make_app

__all__ = ["make_app"]
