"""What a thread beside the training loop says first."""

import torch


def alone() -> None:
    """This thread's torch operations use no other threads from here on; the loop's use as many as before.

    The loop's threads find each other by spinning for some microseconds. Once a process has more OpenMP
    threads than cores, counting those of every thread that ever ran an operation in parallel, libgomp lets
    them sleep instead, which halves the speed of a small net.
    """
    torch.set_num_threads(1)
