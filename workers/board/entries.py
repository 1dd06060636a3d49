"""What a board shows, each written at once by the board's thread: numbers, words, pictures, distributions."""

import contextlib
import io
import json
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from core.nets import build

# B rows, C classes or channels, H height, W width

#: Points of a precision-recall curve.
PR_THRESHOLDS = 127


def write_scalars(values: Mapping[str, float], step: int, at: float, writer: SummaryWriter) -> None:
    for name, value in values.items():
        writer.add_scalar(name, value, step, walltime=at)


def write_spec(spec: dict[str, Any], writer: SummaryWriter) -> None:
    """The spec as text, and what of it is compared between jobs as hyperparameters."""
    text = json.dumps(spec, indent=2, ensure_ascii=False)
    writer.add_text("spec", "\n".join(f"    {line}" for line in text.splitlines()), 0)
    # Into this run's own file: `add_hparams` would begin a run of its own for them.
    for summary in hparams(hyperparameters(spec), {"val_loss": 0.0}):  # type: ignore[no-untyped-call]
        writer._get_file_writer().add_summary(summary)  # type: ignore[no-untyped-call]


def hyperparameters(spec: dict[str, Any]) -> dict[str, bool | str | float]:
    """Flat names of the parts that are tuned; what is a structure in them is left out."""
    parts = {name: spec.get(name) or {} for name in ("model", "loss", "optimizer", "scheduler", "trainer")}
    return {
        f"{part}.{name}": value
        for part, component in parts.items()
        for name, value in component.items()
        if isinstance(value, bool | str | int | float)
    }


def write_images(images_BCHW: Tensor, step: int, writer: SummaryWriter) -> None:
    """float32 in 0..1, as one grid."""
    pixels = (images_BCHW * 255).round().to(torch.uint8)  # floats would be cut down to the byte below
    writer.add_images("train_batch", pixels, step)


def write_histograms(samples: Mapping[str, NDArray[np.float32]], step: int, writer: SummaryWriter) -> None:
    for name, values in samples.items():
        if len(values) and np.isfinite(values).all():
            writer.add_histogram(f"weights/{name}", values, step)


def write_graph(model: dict[str, Any], example: tuple[Tensor, ...], writer: SummaryWriter) -> None:
    """Traced on a copy on the CPU whose weights are zeros, since building it must not draw any. A net that
    can't be traced has no graph."""
    with torch.device("meta"):
        net = build.build_net(model)
    net = zeroed(net).eval()
    # The tracer is deprecated, says so, and prints why it failed.
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        with contextlib.suppress(Exception), torch.no_grad():
            # Traced here, and once: `add_graph` would run the net twice more, to compare.
            traced = torch.jit.trace(net, example, check_trace=False)  # type: ignore[no-untyped-call]
            writer.add_graph(traced, example)


def zeroed(net: nn.Module) -> nn.Module:
    net = net.to_empty(device="cpu")
    for tensor in [*net.parameters(), *net.buffers()]:
        tensor.data.zero_()
    return net


def write_pr_curves(
    scores_BC: Tensor, truth_BC: Tensor, labels: list[str], step: int, writer: SummaryWriter
) -> None:
    """One a class: its scores against whether a row is of it."""
    for place, label in enumerate(labels):
        scores_B, truth_B = scores_BC[:, place].numpy(), truth_BC[:, place].numpy()
        writer.add_pr_curve(f"pr/{label}", truth_B, scores_B, step, num_thresholds=PR_THRESHOLDS)
