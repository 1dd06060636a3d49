"""The demo: a small CNN on scikit-learn's digits, from upload to prediction."""
