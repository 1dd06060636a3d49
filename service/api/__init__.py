"""One module a resource; each handler decodes, calls, answers."""
