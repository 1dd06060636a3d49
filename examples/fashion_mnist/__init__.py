"""The PyTorch quickstart's NeuralNetwork on Fashion-MNIST's own files."""
