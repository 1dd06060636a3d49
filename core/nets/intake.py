"""How rows reach a net: which inputs it has and what makes them, from the spec and the manifest."""

import torch
from msgspec import Struct
from torch import Tensor

from core.data.inputs import NetInput
from core.data.manifest import Kind, Manifest
from core.data.prepare import resolve_prepare
from core.data.targets import Targets
from core.faults import fault
from core.nets.build import Component
from core.nets.images import Images, image_shapes, resolve_images
from core.nets.mixing import num_soft_classes
from modelyard.specs import JobSpec, ProblemError

# B rows in the batch


class Intake(Struct, frozen=True):
    """The inputs of a net in its order; `prepare` makes them of a table, `images` of images."""

    inputs: list[NetInput]
    prepare: list[Component]
    images: Images | None

    @property
    def transforms(self) -> dict[str, list[Component]]:
        if self.images is None:
            return {"train": [], "eval": []}
        return {"train": self.images.train, "eval": self.images.eval}

    def meta_batch(self, rows: int) -> list[tuple[NetInput, Tensor]]:
        """One batch [B, …] of each input, with a shape and no bytes."""
        return [
            (each, torch.empty(rows, *each.shape, dtype=getattr(torch, each.dtype), device="meta"))
            for each in self.inputs
        ]


def resolve_intake(
    spec: JobSpec, targets: Targets, manifest: Manifest, errors: list[ProblemError]
) -> Intake | None:
    """None where something is wrong; then `errors` says what."""
    before = len(errors)
    shapes = image_shapes(manifest, targets.columns[0])
    if not shapes:
        for name, components in (("train", spec.transforms.train), ("eval", spec.transforms.eval)):
            if components:
                message = (
                    f"Transforms act on images; this dataset holds {manifest.kind.value}. Leave them out."
                )
                fault(errors, f"/transforms/{name}", "wrong_kind", message)
    if manifest.kind is not Kind.TABLE and spec.prepare:
        message = f"prepare acts on tables; this dataset holds {manifest.kind.value}. Leave it out."
        fault(errors, "/prepare", "wrong_kind", message)
    name = next(iter(targets.inputs))
    intake: Intake | None = None
    if shapes:
        images = resolve_images(spec.transforms, shapes, errors, num_soft_classes(targets, spec.loss))
        if images is not None:
            intake = Intake([NetInput(name, list(images.shape))], [], images)
    elif manifest.kind is Kind.TABLE:
        prepared = resolve_prepare(spec.prepare, targets.inputs, manifest, errors)
        intake = Intake(prepared.inputs, prepared.components, None)
    else:
        intake = _of_arrays(name, targets.columns[0], manifest, errors)
    return intake if len(errors) == before else None


def _of_arrays(name: str, column: str, manifest: Manifest, errors: list[ProblemError]) -> Intake | None:
    shape = manifest.features[column].shape
    if shape:
        return Intake([NetInput(name, list(shape))], [], None)
    message = f"{column!r} holds one number a row, and a net takes [batch, features]; upload it as [rows, 1]."
    fault(errors, "/inputs", "shape", message)
    return None
