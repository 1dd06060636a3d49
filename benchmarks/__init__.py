"""Measurements against bars, each a module to run with `python -m`."""
