"""Which of torchvision's transforms has a batch form, and with which arguments.

An argument is read from torchvision's object, which has checked it and filled in what was left out.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from msgspec import Struct
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from core.nets.augment import affine, chances, colour, crops, erasing, filters
from core.nets.augment.chances import Batched

# B rows in the batch, C channels, H height, W width

#: What comes out of a transform: one tensor where rows have one size.
Rows = Tensor | list[Tensor]


class Form(Struct, frozen=True):
    """`of_rows` is for rows of differing sizes, where they are better served together than one by one."""

    batched: Batched
    of_rows: Callable[[list[Tensor], Tensor], Tensor] | None = None

    def __call__(self, rows: Rows, key_B: Tensor) -> Rows:
        """Rows are [C, H, W], or [T, C, H, W] whose T images share their draws."""
        if isinstance(rows, Tensor):
            return self._whole(rows, key_B)
        if self.of_rows is not None and rows[0].ndim == 3:
            return self.of_rows(rows, key_B)
        return [self._whole(row[None], key_B[i : i + 1])[0] for i, row in enumerate(rows)]

    def _whole(self, x: Tensor, key_B: Tensor) -> Tensor:
        if x.ndim == 4:
            return self.batched(x, key_B)
        many = x.shape[1:-3].numel()
        out = self.batched(x.flatten(0, -4), key_B.repeat_interleave(many))
        return out.view(*x.shape[:-3], *out.shape[1:])


def form_of(transform: nn.Module) -> Form | None:
    """None for one that has none, and for one that holds such."""
    make = _FORMS.get(type(transform))
    return None if make is None else make(transform)


def _flat(batched: Callable[..., Tensor], *names: str) -> Callable[[Any], Form]:
    """A form whose keywords are the transform's attributes of those names."""
    return lambda t: Form(partial(batched, **{name: getattr(t, name) for name in names}))


def _sometimes(change: Callable[..., Tensor], *names: str) -> Callable[[Any], Form]:
    """`change` draws nothing, and treats each image of a batch alone."""

    def make(t: Any) -> Form:
        keywords = {name: getattr(t, name) for name in names}
        return Form(partial(chances.sometimes, change=partial(change, **keywords), p=t.p))

    return make


def _crop(t: v2.RandomCrop) -> Form:
    left, right, top, bottom = t.padding or (0, 0, 0, 0)
    padding = crops.Padding(left, right, top, bottom, t.pad_if_needed, _fill(t), t.padding_mode)
    size = (t.size[0], t.size[1])
    return Form(
        partial(crops.random_crop, size=size, padding=padding),
        partial(crops.random_crop_rows, size=size, padding=padding),
    )


def _resized_crop(t: v2.RandomResizedCrop) -> Form:
    keywords = {
        "size": t.size,
        "scale": t.scale,
        "ratio": t.ratio,
        "interpolation": _interpolation(t),
        "antialias": bool(t.antialias),
    }
    return Form(
        partial(crops.random_resized_crop, **keywords), partial(crops.random_resized_crop_rows, **keywords)
    )


def _rotation(t: v2.RandomRotation) -> Form | None:
    mode = _mode(t)
    if mode is None or t.expand:
        return None
    return Form(partial(affine.random_rotation, degrees=t.degrees, mode=mode, centre=t.center, fill=_fill(t)))


def _affine(t: v2.RandomAffine) -> Form | None:
    mode = _mode(t)
    if mode is None:
        return None
    return Form(
        partial(
            affine.random_affine,
            degrees=t.degrees,
            translate=t.translate,
            scale=t.scale,
            shear=t.shear,
            mode=mode,
            centre=t.center,
            fill=_fill(t),
        )
    )


def _perspective(t: v2.RandomPerspective) -> Form | None:
    mode = _mode(t)
    if mode is None:
        return None
    change = partial(affine.random_perspective, distortion_scale=t.distortion_scale, mode=mode, fill=_fill(t))
    return Form(partial(chances.sometimes_drawn, change=change, p=t.p))


def _grey(x_BCHW: Tensor) -> Tensor:
    grey: Tensor = F.rgb_to_grayscale(x_BCHW, num_output_channels=x_BCHW.shape[1])
    return grey


def _sharpness(t: v2.RandomAdjustSharpness) -> Form:
    change = partial(filters.sharpen, factor=t.sharpness_factor)
    return Form(partial(chances.sometimes, change=change, p=t.p))


def _held(transforms: Sequence[nn.Module]) -> list[Batched] | None:
    """The forms of what a container holds; None where one has none, or changes the size of its rows alone."""
    forms: list[Batched] = []
    for held in transforms:
        form = form_of(held)
        if type(held) in _ALIKE:
            forms.append(partial(chances.unkeyed, change=held))
        elif form is None or form.of_rows is not None:
            return None
        else:
            forms.append(form.batched)
    return forms


def _in_turn(t: v2.Compose) -> Form | None:
    forms = _held(t.transforms)
    return None if forms is None else Form(partial(chances.in_turn, forms=forms))


def _apply(t: v2.RandomApply) -> Form | None:
    forms = _held(t.transforms)
    if forms is None:
        return None
    change = partial(chances.in_turn, forms=forms)
    return Form(partial(chances.sometimes_drawn, change=change, p=t.p))


def _choice(t: v2.RandomChoice) -> Form | None:
    forms = _held(t.transforms)
    return None if forms is None else Form(partial(chances.one_of, forms=forms, p=t.p))


def _order(t: v2.RandomOrder) -> Form | None:
    forms = _held(t.transforms)
    return None if forms is None else Form(partial(chances.in_any_order, forms=forms))


def _fill(t: Any) -> Any:
    return t._fill["others"]


def _interpolation(t: Any) -> InterpolationMode:
    return InterpolationMode(t.interpolation)


def _mode(t: Any) -> str | None:
    mode: str = _interpolation(t).value
    return mode if mode in ("nearest", "bilinear") else None


#: Deterministic, the same for an image alone and in a batch, and leave its size as it is.
_ALIKE = frozenset({v2.Identity, v2.Normalize, v2.Grayscale, v2.RGB})

_FORMS: dict[type[nn.Module], Callable[[Any], Form | None]] = {
    v2.RandomHorizontalFlip: _sometimes(chances.flip_horizontally),
    v2.RandomVerticalFlip: _sometimes(chances.flip_vertically),
    v2.RandomInvert: _sometimes(F.invert),
    v2.RandomPosterize: _sometimes(F.posterize, "bits"),
    v2.RandomSolarize: _sometimes(F.solarize, "threshold"),
    v2.RandomAutocontrast: _sometimes(F.autocontrast),
    v2.RandomEqualize: _sometimes(F.equalize),
    v2.RandomGrayscale: _sometimes(_grey),
    v2.RandomAdjustSharpness: _sharpness,
    v2.RandomChannelPermutation: _flat(chances.permute_channels),
    v2.RandomCrop: _crop,
    v2.RandomResizedCrop: _resized_crop,
    v2.RandomErasing: _flat(erasing.random_erasing, "p", "scale", "ratio", "value"),
    v2.RandomRotation: _rotation,
    v2.RandomAffine: _affine,
    v2.RandomPerspective: _perspective,
    v2.ColorJitter: _flat(colour.color_jitter, "brightness", "contrast", "saturation", "hue"),
    v2.RandomPhotometricDistort: _flat(
        colour.photometric_distort, "brightness", "contrast", "saturation", "hue", "p"
    ),
    v2.GaussianBlur: _flat(filters.gaussian_blur, "kernel_size", "sigma"),
    v2.GaussianNoise: _flat(filters.gaussian_noise, "mean", "sigma", "clip"),
    v2.JPEG: _flat(filters.jpeg, "quality"),
    v2.Compose: _in_turn,
    v2.RandomApply: _apply,
    v2.RandomChoice: _choice,
    v2.RandomOrder: _order,
}
