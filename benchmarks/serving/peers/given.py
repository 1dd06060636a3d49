"""What a peer is told by the benchmark, in its environment."""

import os
from pathlib import Path

import torch
from torch import nn

from benchmarks.training.nets import make_net


def port() -> int:
    return int(os.environ["BENCH_PORT"])


def batch_size() -> int:
    """How many requests it may gather for one forward; 1 is none but the one."""
    return int(os.environ.get("BENCH_BATCH", "1"))


def load_net() -> nn.Module:
    """The notes' MLP with the weights that the service gave."""
    net = make_net("mlp")
    net.load_state_dict(torch.load(Path(os.environ["BENCH_WEIGHTS"]), weights_only=True))
    return net.eval()
