"""Weights in the formats of other programs: written, read back by a program that is not ours, compared, and
kept. What runs torch here runs in a child of the service."""
