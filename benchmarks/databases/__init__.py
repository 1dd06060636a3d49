"""What `benchmarks.database` stands on: rows of a house that has worked for years, and who asks for them."""
