"""Datasets on disk: the manifest, reading Arrow, the packed cache."""
