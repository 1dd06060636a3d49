"""A batch prediction in a worker: its supervisor, and the child that reads, answers and writes."""
