"""Linear regression: one Linear, the mean squared error, and the closed form to compare with."""
