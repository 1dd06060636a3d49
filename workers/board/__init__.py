"""A job's event files for TensorBoard: what the child writes, and what the supervisor stores of it."""
