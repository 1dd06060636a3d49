"""Checkpoints: the weights of a job at a step, to download."""

import os
from pathlib import Path

from modelyard.resources.downloads import Downloading
from modelyard.transport.calls import path as path_of
from modelyard.transport.resource import R, operation
from modelyard.transport.story import Story


class Checkpoints(Downloading[R]):
    """`client.checkpoints`."""

    @operation
    def download(self, checkpoint_id: str, path: str | os.PathLike[str], format: str = "pt") -> Story[Path]:
        """Write the weights to the file `path`.

        `format`: `pt`, a `state_dict` for `torch.load(…, weights_only=True)`; `safetensors`; and, of a
        checkpoint that a version was registered from, its graph as `onnx` or `torch_export` (.pt2).
        The file appears whole or not at all, and only when its SHA-256 is the one the service names.
        Raises Gone where the bytes were collected, Invalid where the net has no such form, Unavailable
        where an export takes longer than the retries; UnexpectedReply where bytes came damaged; OSError.
        """
        url = path_of("/v1/checkpoints/{}/weights", checkpoint_id)
        return (yield from self._download_weights(url, path, format))
