"""A table of numbers, strings, dates and missing values."""
