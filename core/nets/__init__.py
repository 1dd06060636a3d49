"""Nets from specs: the registry of torch's own classes, building, planning, transforms, artifacts."""
