"""What `benchmarks.train` compares: the same trainings through the service and as plain scripts."""
