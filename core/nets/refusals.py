"""What torch and torchvision raise for values they refuse."""

REFUSALS = (
    RuntimeError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    AssertionError,
    ArithmeticError,
)
