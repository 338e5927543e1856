"""Zarr's documents, as pure functions between bytes and values. Nothing here knows a store.

Import the module that you need: ``documents``, ``dtypes``, ``chunking``, ``codecs``, ``v1``, ``v2``, ``v3`` or
``consolidated``.
"""
