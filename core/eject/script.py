"""`train.py`: what a job did, as a script of plain PyTorch that gives the same weights to the bit.

All that a user named freely (a job, columns, classes) stands in `data.json`. In the script are names of the
registry, numbers, and patterns as string literals.
"""

import re
from typing import Any

import torch
from msgspec import Struct
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from core.data.manifest import Kind, Manifest
from core.data.targets import Targets
from core.eject import pixels, reading, training
from core.eject.code import WIDTH, Bracketed, Node, assign, call
from core.eject.components import Written
from core.eject.data import Reading
from core.eject.sources import Cutting, import_blocks, in_isort_order
from core.eject.training import Settings
from core.nets import build
from core.nets.randomness import hash_rows, permutation
from core.nets.readout import has_one_output
from core.nets.steps import steps_per_epoch
from core.nets.transforms import Pipeline
from modelyard.specs import JobSpec

#: The file of the functions that are ours.
PARTS = "parts"

PERMUTATION = '''
def splitmix(z):
    """One step of splitmix64; sums and products of int64 wrap as those of uint64 do."""

    def shift(z, bits):  # without the sign
        return (z >> bits) & ((1 << (64 - bits)) - 1)

    z = z - 0x61C8864680B583EB
    z = (z ^ shift(z, 30)) * -0x40A7B892E31B1A47
    z = (z ^ shift(z, 27)) * -0x6B2FB644ECCEEE15
    return z ^ shift(z, 31)


def permutation(seed, epoch, n):
    """The order of n rows in an epoch: sorted by a hash of seed, epoch and row."""
    keys = torch.zeros(n, dtype=torch.int64)
    for word in (seed, epoch, torch.arange(n), 2**32):
        keys = splitmix(keys ^ word)
    return keys.argsort(stable=True)
'''

FINGERPRINT = '''
def fingerprint(state):
    """SHA-256 of the bytes of all tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(state[name].contiguous().numpy().tobytes())
    return digest.hexdigest()
'''

ROW_BY_ROW = '''
def row_by_row(x, keys, transform):
    """Each image with the generator seeded for it, whose state is as before afterwards."""
    state = torch.default_generator.get_state()
    images = []
    for image, key in zip(x, keys.tolist(), strict=True):
        torch.default_generator.manual_seed(key)
        images.append(transform(image))
    torch.default_generator.set_state(state)
    return torch.stack(images)
'''

IS_A = """
def is_a(layer, name):
    return any(each.__name__ == name for each in type(layer).__mro__)
"""

#: What a script imports where its text has the pattern.
IMPORTS = {
    r"\bhashlib\.": "import hashlib",
    r"\bio\.": "import io",
    r"\bjson\.": "import json",
    r"\bre\.": "import re",
    r"\bsys\.": "import sys",
    r"\bpartial\(": "from functools import partial",
    r"\bPath\(": "from pathlib import Path",
    r"\bnp\.": "import numpy as np",
    r"\bpa\.": "import pyarrow as pa",
    r"\btorch\.": "import torch",
    r"\bImageOps\.": "from PIL import Image, ImageOps",
    r"\bnn\.": "from torch import nn",
    r"\boptim\.": "from torch import optim",
    r"\blr_scheduler\.": "from torch.optim import lr_scheduler",
    r"\bswa_utils\.": "from torch.optim import swa_utils",
    r"\bmodels\.": "from torchvision import models",
    r"\bv2\.": "from torchvision.transforms import v2",
}


class Trained(Struct, frozen=True):
    """How far a job came: completed `epochs`, and optimizer `steps` in all. `resolved` are the settings that
    its first claim fixed."""

    epochs: int
    steps: int
    resolved: dict[str, Any]


class Script(Struct, frozen=True):
    """`text` imports what `ours` holds, where it holds anything."""

    text: str
    ours: Cutting


def write(
    title: str, spec: JobSpec, manifest: Manifest, targets: Targets, rows: Reading, trained: Trained
) -> Script:
    """Raises pixels.Unwritable."""
    written = Written()
    with torch.device("meta"):
        net: nn.Module = build.build_net(spec.model)
    loss_type = str((spec.loss or {}).get("type"))
    is_single = has_one_output(loss_type, targets)
    is_classes = targets.task == "classification"
    views = Views.of(spec, manifest)
    has_batch_norm = any(isinstance(module, _BatchNorm) for module in net.modules())
    whole = trained.epochs * steps_per_epoch(
        len(rows.train),
        spec.trainer.batch_size,
        drop_last=spec.trainer.drop_last,
        has_batch_norm=has_batch_norm,
        accumulate=spec.trainer.accumulate,
    )
    is_cut = trained.steps > whole
    epochs = trained.epochs + is_cut
    settings = Settings(
        resolved=trained.resolved,
        names=[name for name, _ in net.named_parameters()],
        inputs=views.train_inputs,
        eval_inputs=views.eval_inputs,
        is_reshaped=is_single or (not is_classes and loss_type != "GaussianNLLLoss"),
        counts_right=is_classes and not is_single and not targets.is_one_hot,
        has_batch_norm=has_batch_norm,
        rows=len(rows.train),
        has_test=len(rows.test) > 0,
        steps=trained.steps if is_cut else None,
    )
    prefixes = views.prefixes(written)
    mixers = pixels.mixers(spec.transforms.train, len(rows.classes or []), written)
    main = [
        *_opening(manifest, targets, rows, prefixes, is_single=is_single),
        "",
        *training.net_lines(spec, settings, written),
        "",
        *training.objective_lines(spec, settings, written),
        "",
        *training.loop_lines(spec, settings, mixers),
    ]
    functions = [
        *reading.definitions(manifest, targets, rows, prefixes),
        *views.definitions(written),
        *training.definitions(spec, settings),
        FINGERPRINT.strip("\n"),
    ]
    text = "\n".join(main)
    if spec.initialize and "is_a(" in text:
        functions.append(IS_A.strip("\n"))
    if any("row_by_row(" in each for each in functions):
        functions.append(ROW_BY_ROW.strip("\n"))
    if "permutation(" in text:
        if hash_rows.__name__ in written.ours.names:
            written.ours.name(permutation)
        else:
            functions.insert(-1, PERMUTATION.strip("\n"))
    constants = [
        'DATA = json.loads(Path(__file__).with_name("data.json").read_text())',
        f"SEED = {spec.trainer.seed}",
        f"EPOCHS = {epochs}{_of_at_most(spec, epochs)}",
        *([f"STEPS = {trained.steps}"] if is_cut else []),
        f"BATCH_SIZE = {spec.trainer.batch_size}",
        *([f"ACCUMULATE = {spec.trainer.accumulate}"] if spec.trainer.accumulate > 1 else []),
        *_prefix_constants(prefixes),
    ]
    body = "\n\n\n".join(["\n".join(constants), *functions, text])
    head = _imports(body, written)
    return Script(f'"""{title}"""\n\n{head}\n\n{body.rstrip()}\n', written.ours)


class Views(Struct, frozen=True):
    """What is done to a batch before the net sees it, in training and in evaluation."""

    train: Pipeline | None
    eval: Pipeline | None
    is_one: bool

    @classmethod
    def of(cls, spec: JobSpec, manifest: Manifest) -> "Views":
        if manifest.kind is Kind.TABLE:
            return cls(None, None, is_one=True)
        train, evaluation = spec.transforms.train, spec.transforms.eval or []
        made = [Pipeline.from_spec(each) if each else None for each in (train, evaluation)]
        return cls(made[0], made[1], is_one=made[0] is None or _steps(made[0]) == _steps(made[1]))

    @property
    def train_inputs(self) -> str:
        if self.train is None or not self.train.rest:
            return "x[rows]"
        return "prepare(x[rows])" if self.is_one else "augment(x[rows], rows, epoch)"

    @property
    def eval_inputs(self) -> str:
        x = "x_eval[batch]" if self.has_two_prefixes else "x[batch]"
        return x if self.eval is None or not self.eval.rest else f"prepare({x})"

    @property
    def has_two_prefixes(self) -> bool:
        if self.train is None or self.eval is None:
            return False
        return self.train.prefix_key() != self.eval.prefix_key()

    def prefixes(self, written: Written) -> list[list[Node]]:
        of_eval = pixels.prefix_calls(self.eval, written) if self.eval is not None else []
        if not self.has_two_prefixes or self.train is None:
            return [of_eval]
        return [pixels.prefix_calls(self.train, written), of_eval]

    def definitions(self, written: Written) -> list[str]:
        parts = []
        if self.train is not None and self.train.rest and not self.is_one:
            lines = pixels.lines_of(self.train, written, "rows", "epoch", 4)
            told = '    """The training transforms: each draw is a function of seed, epoch, row and place."""'
            parts.append("\n".join(["def augment(x, rows, epoch):", told, *_returning(lines)]))
        if self.eval is not None and self.eval.rest:
            lines = pixels.lines_of(self.eval, written, "rows", "0", 4)
            told = '    """From stored pixels to what the net sees."""'
            parts.append("\n".join(["def prepare(x):", told, *_returning(lines)]))
        return parts


def _returning(lines: list[str]) -> list[str]:
    """The last assignment as what is returned, where it is one line."""
    *others, last = lines
    if "\n" in last or len(last) + 3 > WIDTH:
        return [*lines, "    return x"]
    return [*others, last.replace("    x = ", "    return ", 1)]


def _steps(pipeline: Pipeline | None) -> list[Any]:
    return [] if pipeline is None else [step.component for step in (*pipeline.prefix, *pipeline.rest)]


def _opening(
    manifest: Manifest, targets: Targets, rows: Reading, prefixes: list[list[Node]], *, is_single: bool
) -> list[str]:
    return [
        'table = read_table(sys.argv[1] if len(sys.argv) > 1 else "data.arrow")',
        *reading.inputs(manifest, targets, prefixes),
        *reading.labels(manifest, targets, rows, is_single=is_single),
        *reading.ROWS.strip("\n").split("\n"),
    ]


def _prefix_constants(prefixes: list[list[Node]]) -> list[str]:
    names = ["PREFIX"] if len(prefixes) == 1 else ["PREFIX", "EVAL_PREFIX"]
    lines = []
    for name, calls in zip(names, prefixes, strict=True):
        if len(calls) == 1:
            lines.append(assign(name, calls[0]))
        elif calls or len(prefixes) > 1:
            held = Bracketed([("", each) for each in calls], bracket="[")
            lines.append(assign(name, call("v2.Compose", held)))
    return lines


def _of_at_most(spec: JobSpec, epochs: int) -> str:
    return f"  # of {spec.trainer.epochs}: the job ended there" if epochs < spec.trainer.epochs else ""


def _imports(body: str, written: Written) -> str:
    blocks = import_blocks(line for pattern, line in IMPORTS.items() if re.search(pattern, body))
    if written.ours.is_empty:
        return blocks
    names = ", ".join(sorted(written.ours.names, key=in_isort_order))
    line = f"from {PARTS} import {names}"
    if len(line) > WIDTH:
        line = f"from {PARTS} import (\n" + "".join(f"    {name},\n" for name in names.split(", ")) + ")"
    return f"{blocks}\n\n{line}"
