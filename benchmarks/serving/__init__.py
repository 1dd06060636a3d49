"""What `benchmarks.serve` compares: a net behind the service, behind other Python servers, alone."""
