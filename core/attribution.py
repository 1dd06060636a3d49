"""What an answer rests on, by captum: a heat map of an image, a number for each column of a table's row.

captum is the extra `explain` and takes a second to import, so only who explains imports this.

- saliency: |df/dx|, of an image the largest over its channels (Simonyan, Vedaldi, Zisserman, 2014, "Deep
  Inside Convolutional Networks", section 3.1, https://arxiv.org/abs/1312.6034).
- integrated gradients: (x - b) times the mean of df/dx on the straight way from b to x (Sundararajan, Taly,
  Yan, 2017, "Axiomatic Attribution for Deep Networks", eq. 1, https://arxiv.org/abs/1703.01365). b is what
  the transforms make of a black image, or a prepared row of zeros: numbers at their training mean where they
  are standardised, no category. They add up to f(x) - f(b).

f is what the net gives for the class that was answered, before softmax, sigmoid or exp: at a sure answer
those are flat. x is what reaches the net, after the transforms or `prepare`.
"""

import base64
from collections.abc import Callable
from io import BytesIO
from typing import Any

import msgspec
import numpy as np
import torch
from captum.attr import IntegratedGradients, Saliency
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from core.data import prepare
from core.data.images import CHANNELS
from core.data.manifest import Kind
from core.errors import Invalid
from core.faults import first_line
from core.nets.readout import Outputs, read_out
from core.predict import FORMAT_1_READOUTS, Predictor
from modelyard.specs import Explanation, Method

# B points on the way, C channels, H height, W width, F features

#: Points on the way from the baseline, by Gauss-Legendre; so many go through the net at once.
STEPS = 32
STEPS_AT_ONCE = 8


def explain(predictor: Predictor, instance: Any, method: Method, index: int | None) -> Explanation:
    """Of the class or label `index`; None for a regression. Raises Invalid where the model or its net has
    nothing to explain with."""
    inputs = predictor.net_inputs([instance])
    _require_explainable(predictor, inputs)
    attributions = _attributions(predictor, inputs, method, index or 0)
    explained = Explanation(method, msgspec.UNSET if index is None else index)
    if predictor.manifest.kind is Kind.TABLE:
        columns = _by_column(predictor, instance, attributions, method)
        return msgspec.structs.replace(explained, columns=columns)
    return msgspec.structs.replace(explained, heat_map=_heat_map(_by_pixel(attributions[0][0], method)))


def _require_explainable(predictor: Predictor, inputs: list[Tensor]) -> None:
    manifest = predictor.manifest
    if not all(part.is_floating_point() for part in inputs):
        raise _not_explainable("it reads text as indices of tokens, and an index has no gradient")
    is_image = inputs[0].ndim == 4 and inputs[0].shape[1] in CHANNELS and predictor.pipeline is not None
    if manifest.kind is not Kind.TABLE and not is_image:
        raise _not_explainable("it takes arrays, which have neither pixels nor columns")


def _attributions(predictor: Predictor, inputs: list[Tensor], method: Method, index: int) -> list[Tensor]:
    """[1, …] for each input."""
    points = tuple(part.clone().requires_grad_() for part in inputs)
    answer = _answer(predictor, index)
    try:
        match method:
            case "saliency":
                found = Saliency(answer).attribute(points)
            case "integrated_gradients":
                found = IntegratedGradients(answer).attribute(
                    points,
                    baselines=_baselines(predictor, inputs),
                    n_steps=STEPS,
                    internal_batch_size=STEPS_AT_ONCE,
                )
    except (RuntimeError, AssertionError) as error:
        raise _not_explainable(f"its gradient cannot be had ({first_line(error)})") from error
    attributions = [part.detach() for part in found]
    if not all(part.isfinite().all() for part in attributions):
        raise _not_explainable("its gradient at these rows is not finite")
    return attributions


def _answer(predictor: Predictor, index: int) -> Callable[..., Tensor]:
    """f: [B, …] of each input to [B]."""
    manifest = predictor.manifest
    readout = manifest.readout or FORMAT_1_READOUTS[manifest.task]
    if readout.activation in ("softmax", "sigmoid", "exp"):
        readout = msgspec.structs.replace(readout, activation="none")

    def answer(*inputs: Tensor) -> Tensor:
        outputs: Outputs = predictor.net(*inputs)
        values_BK = read_out(readout, outputs)
        values_BK = values_BK.reshape(len(values_BK), -1)
        if manifest.classes is None and values_BK.shape[1] > 1:
            raise _not_explainable(f"it answers {values_BK.shape[1]} values a row, and one is explained")
        return values_BK[:, index]

    return answer


def _baselines(predictor: Predictor, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    if predictor.pipeline is None:
        return tuple(torch.zeros_like(part) for part in inputs)
    black = torch.zeros(1, *predictor.manifest.row_shape, dtype=torch.uint8)
    return (predictor.pipeline.apply_rest(black, seed=0, epoch=0, indices=[0]),)


def _by_pixel(attribution_CHW: Tensor, method: Method) -> NDArray[np.float64]:
    """[H, W], none negative."""
    if method == "saliency":
        values_HW = attribution_CHW.abs().amax(dim=0)
    else:
        values_HW = attribution_CHW.sum(dim=0).abs()
    return values_HW.double().numpy()


def _heat_map(values_HW: NDArray[np.float64]) -> str:
    """A PNG in base64: black for nothing, then red, yellow, and white for the largest."""
    largest = values_HW.max(initial=0)
    share_HW = values_HW / largest if largest > 0 else values_HW
    colours_HW3 = np.clip(3 * share_HW[..., None] - [0, 1, 2], 0, 1)
    out = BytesIO()
    Image.fromarray(np.rint(255 * colours_HW3).astype(np.uint8)).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def _by_column(
    predictor: Predictor, row: dict[str, Any], attributions: list[Tensor], method: Method
) -> dict[str, float]:
    """Of a column's features the sum, as the whole is one; of gradients the largest."""
    fitted = {column.name: column for column in predictor.manifest.prepare}
    found: dict[str, float] = {}
    for names, attribution_1F in zip(predictor.inputs.values(), attributions, strict=True):
        at = 0
        for name in names:
            alone = prepare.columns_from_rows([row], [fitted[name]])
            width = prepare.apply([fitted[name]], {name: [name]}, alone)[0].shape[1]
            features_F = attribution_1F[0, at : at + width]
            at += width
            if method == "saliency":
                found[name] = max(found.get(name, 0.0), features_F.max().item())
            else:
                found[name] = found.get(name, 0.0) + features_F.sum().item()
    return found


def _not_explainable(reason: str) -> Invalid:
    return Invalid(f"This model cannot be explained: {reason}. Leave out explain.", code="not_explainable")
