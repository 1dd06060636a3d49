"""The notes' MLP behind other Python servers, each as its tutorial writes it, in its own environment."""
