"""`python -m modelyard.cli`."""

from modelyard.cli.app import main

main()
