"""Random transforms on a whole batch, on its device, each row with draws of its own.

A batch form is a plain function `(x_BCHW, key_B, …) -> x_BCHW`: what it does to a row is a function of the
row's pixels and of its 64-bit key alone, to the bit on a CPU, whoever else is in the batch. It takes nothing
from torch's generators, and on a GPU it waits for nothing. `table.py` says which class of
torchvision.transforms.v2 has which form.
"""
