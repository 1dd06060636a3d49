"""LitServe as its examples write it; it gathers batches where it is told to.

python -m benchmarks.serving.peers.with_litserve
"""

from typing import Any

import litserve
import torch
from torch import Tensor

from benchmarks.serving.peers import given

# B images in the batch, H height, W width


class Classifier(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.net = given.load_net().to(device)

    def decode_request(self, request: dict[str, Any], **_: Any) -> Tensor:
        return torch.tensor(request["instances"][0], dtype=torch.float32) / 255

    def predict(self, pixels: Tensor, **_: Any) -> Tensor:
        """[B, H, W], or [H, W] where nothing is gathered."""
        with torch.no_grad():
            scores = torch.softmax(self.net(pixels.reshape(-1, 28, 28)), 1)
        return scores if pixels.ndim == 3 else scores[0]

    def encode_response(self, output: Tensor, **_: Any) -> dict[str, Any]:
        score, index = output.max(0)
        return {"predictions": [{"index": index.item(), "score": score.item()}]}


def main() -> None:
    server = litserve.LitServer(Classifier(max_batch_size=given.batch_size()), accelerator="cpu")
    server.run(
        host="127.0.0.1",
        port=given.port(),
        num_api_servers=1,
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )


if __name__ == "__main__":
    main()
