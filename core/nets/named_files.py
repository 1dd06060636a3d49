"""The files that a job names, held against what it makes of them: weights by their names and shapes, a
tokenizer by its indices. What is too large to be looked at in a moment is left to the worker.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from core.data.prepare.tokenizer_file import open_tokenizer, read_tokenizer
from core.errors import Invalid
from core.faults import fault
from core.nets.build import build_net
from core.nets.components import architectures
from core.nets.meta import QuickMeta
from core.nets.pretrained import WeightsMismatch, differences, read_state, strangeness
from core.nets.safetensors_file import is_safetensors
from core.uploads import uploads_in
from modelyard.specs import ProblemError

Component = dict[str, Any]

#: Of torch's format before 1.6, which is no zip archive and can only be read whole.
MAX_UNMAPPED_BYTES = 128 * 1024 * 1024
#: About half a second of the tokenizers library; those of a hundred thousand words take longer.
MAX_TOKENIZER_BYTES = 4 * 1024 * 1024


def check_weights(model: Component, files: Mapping[str, Path], errors: list[ProblemError]) -> None:
    """Of a model with every size filled in. `files` are local uploads by id; one that isn't there is passed
    over."""
    for pointer, upload_id in uploads_in(model, ""):
        if (path := files.get(upload_id)) is not None:
            told = _weights_fault(_component_at(model, pointer, up=2), upload_id, path)
            if told is not None:
                fault(errors, f"/model{pointer}", "wrong_weights", f"{_begun(told)}.")


def check_start(model: Component, path: Path, errors: list[ProblemError]) -> None:
    """Whether a net with every size filled in takes the weights of the checkpoint that a fork begins with:
    all of them, the head's too."""
    with QuickMeta(), torch.device("meta"):
        net = build_net(model)
    try:
        told = strangeness(net, read_state(path, path.name, is_mapped=True))
    except (MemoryError, WeightsMismatch):  # the worker has more memory, and finds that the file is damaged
        return
    if told is not None:
        message = (
            f"The net of the fork doesn't take the weights that it is to begin with: {told}. Patch what "
            "leaves the names and shapes as they are, or leave from out to begin anew."
        )
        fault(errors, "/model", "wrong_weights", message)


def check_tokenizers(prepare: list[Component], files: Mapping[str, Path], errors: list[ProblemError]) -> None:
    """Of components that have been checked one by one."""
    for pointer, upload_id in uploads_in(prepare, ""):
        if (path := files.get(upload_id)) is None or path.stat().st_size > MAX_TOKENIZER_BYTES:
            continue
        try:
            read_tokenizer(path, _component_at(prepare, pointer, up=2)["vocab_size"])
        except Invalid as error:
            fault(errors, f"/prepare{pointer}", error.code, f"{_begun(error.detail)}.")
        finally:
            open_tokenizer.cache_clear()  # a vocabulary is large, and this process has little memory


def _weights_fault(component: Component, upload_id: str, path: Path) -> str | None:
    kind = component["type"]
    assert kind in architectures.NAMES, "only architectures take weights"
    is_zip = zipfile.is_zipfile(path)
    if not is_zip and not is_safetensors(path) and path.stat().st_size > MAX_UNMAPPED_BYTES:
        return None
    with QuickMeta(), torch.device("meta"):
        module = build_net(component)
    try:
        return differences(module, read_state(path, upload_id, is_mapped=is_zip)).tell(kind)
    except WeightsMismatch as error:
        return str(error)
    except MemoryError:  # the worker has more
        return None


def _component_at(root: Any, pointer: str, *, up: int) -> Component:
    """The one `up` steps above what the pointer names."""
    found = root
    for word in pointer.split("/")[1:-up]:
        found = found[int(word)] if isinstance(found, list) else found[word]
    component: Component = found
    return component


def _begun(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
