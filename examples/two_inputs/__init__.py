"""A Graph with two inputs: numbers and text about the same thing."""
