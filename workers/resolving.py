"""What the first claim of a job fixes about how it runs, and every later attempt repeats.

Rules, not measurements: equal jobs on equal machines get equal settings, so that equal seeds give equal
numbers.
"""

import shutil
from typing import Any

import torch
import torchvision
from torch import nn
from torch.nn.modules.conv import _ConvNd

from core.nets import plugins, products
from modelyard.specs import JobSpec
from workers.messages import Order

#: Optimizers of torch that have a fused form on the CPU and on a GPU.
FUSED = frozenset({"SGD", "Adam", "AdamW", "Adagrad"})
#: Multiply-adds of a step below which a second thread costs more than it brings.
MIN_WORK_FOR_THREADS = 2e7
#: Below this the casts of bf16 cost more than its products bring.
MIN_WORK_FOR_BF16 = 3e7


#: Of the whole training on a GPU: some minutes of an H100, which compiling takes one of.
MIN_WORK_FOR_COMPILE = 5e16
#: What torch's inductor can make code for the CPU with.
COMPILERS = ("g++", "clang++")


class NoDevice(Exception):
    """The worker lacks the device, or the tool, that the spec asks for."""


def resolve(spec: JobSpec, order: Order, net: nn.Module) -> dict[str, Any]:
    """Raises NoDevice."""
    trainer, work = spec.trainer, order.work
    device = _device(spec, order)
    is_free = not trainer.deterministic
    has_images = any(isinstance(part, _ConvNd) and part.weight.dim() == 4 for part in net.modules())
    is_small = work is not None and work < MIN_WORK_FOR_THREADS
    precision = _precision(spec, device, work)
    is_compiled = is_free and _is_compiled(spec, order, device)
    is_plain = device == "cpu" and precision == "fp32" and is_free and not is_compiled
    return {
        "device": device,
        "devices": trainer.devices,
        "precision": precision,
        "threads": 1 if is_small else order.threads,
        "memory_format": "channels_last" if is_free and has_images else "contiguous",
        "compile": is_compiled,
        "fused": is_free and spec.optimizer["type"] in FUSED,
        "products": "onednn" if is_plain and products.is_worth_it() else "torch",
        "deterministic": trainer.deterministic,
        "seed": trainer.seed,
        **_environment(device),
        "plugins": plugins.used_by(order.spec),
    }


def what_differs(resolved: dict[str, Any]) -> dict[str, Any]:
    """Of this machine from the one that a job was begun on: {name: [then, now]}. Empty where a resumed run
    equals an unbroken one. Raises NoDevice."""
    if resolved["device"] == "cuda" and not torch.cuda.is_available():
        raise NoDevice("the job was begun on a GPU, and this worker sees none")
    here = _environment(resolved["device"]).items()
    return {name: [resolved.get(name), value] for name, value in here if resolved.get(name) != value}


def _environment(device: str) -> dict[str, str]:
    """What equal numbers depend on beside the job's own settings."""
    here = {
        "torch": str(torch.__version__),
        "torchvision": str(torchvision.__version__),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }
    if device != "cuda":
        return here
    cudnn = str(torch.backends.cudnn.version())  # type: ignore[no-untyped-call] # torch left it untyped
    return here | {"gpu": torch.cuda.get_device_name(), "cuda": str(torch.version.cuda), "cudnn": cudnn}


def _device(spec: JobSpec, order: Order) -> str:
    if spec.trainer.device == "cuda" and not torch.cuda.is_available():
        raise NoDevice("trainer.device is cuda, and this worker sees no GPU")
    return "cuda" if wants_gpu(spec, order) and torch.cuda.is_available() else "cpu"


def wants_gpu(spec: JobSpec, order: Order) -> bool:
    return spec.trainer.device == "cuda" or (spec.trainer.device == "auto" and order.use_gpu)


def _precision(spec: JobSpec, device: str, work: float | None) -> str:
    if spec.trainer.precision != "auto":
        return spec.trainer.precision
    if spec.trainer.deterministic:
        return "fp32"
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    is_worth_it = work is not None and work >= MIN_WORK_FOR_BF16
    return "bf16" if is_worth_it and has_bf16_instructions() else "fp32"


def _is_compiled(spec: JobSpec, order: Order, device: str) -> bool:
    """On the CPU compiled code was not faster than what is chosen here (docs/benchmarks.md), so only a spec
    that says so gets it."""
    if spec.trainer.compile is True:
        if device == "cpu" and not any(map(shutil.which, COMPILERS)):
            raise NoDevice(f"trainer.compile needs one of {', '.join(COMPILERS)} on the worker; it has none")
        return True
    is_long = order.work is not None and order.work * order.steps >= MIN_WORK_FOR_COMPILE
    return spec.trainer.compile == "auto" and device == "cuda" and is_long


def has_bf16_instructions() -> bool:
    """Whether this processor multiplies bf16 in hardware: AVX512_BF16, or the tiles of AMX."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
