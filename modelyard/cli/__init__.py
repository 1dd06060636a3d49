"""The command line: `modelyard`."""

from modelyard.cli.app import main

__all__ = ["main"]
