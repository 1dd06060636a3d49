"""A pretrained ResNet-18 on new classes: a frozen base, two learning rates, a part that thaws."""
