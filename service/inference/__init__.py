"""The predictor inside the service: loaded models, and the one thread that runs them."""
