"""What the benchmarks print beside their figures."""

import platform
from pathlib import Path


def machine() -> str:
    """What the figures were measured on, for the page that they go to."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "?")
    cores = sum(line.startswith("processor") for line in lines)
    bf16 = "with bf16 instructions" if has_bf16() else "without bf16 instructions"
    return f"{cores} cores of {model}, {bf16}; Python {platform.python_version()}"


def has_bf16() -> bool:
    """Whether the processor multiplies bf16 in hardware."""
    flags = Path("/proc/cpuinfo").read_text().split()
    return "avx512_bf16" in flags or "amx_bf16" in flags


def say(line: str) -> None:
    print(line, flush=True)
