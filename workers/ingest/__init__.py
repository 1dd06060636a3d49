"""Ingest: the bytes of an upload -> Arrow and a manifest, in a process of its own, under limits.

Run as `python -m workers.ingest`. Knows pyarrow, Pillow, numpy and msgspec; no torch, no database.
"""
