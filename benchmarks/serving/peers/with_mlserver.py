"""MLServer with a runtime of its own, in one process; it gathers batches where it is told to.

python -m benchmarks.serving.peers.with_mlserver
"""

import asyncio
import socket

import torch
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from benchmarks.serving.peers import given

#: How long it waits for a batch to fill.
GATHER_S = 0.002


class Classifier(MLModel):  # type: ignore[misc]  # it ships no types
    async def load(self) -> bool:
        self._net = given.load_net()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        pixels = torch.from_numpy(NumpyCodec.decode_input(payload.inputs[0])) / 255
        with torch.no_grad():
            scores = torch.softmax(self._net(pixels), 1)
        outputs = [NumpyCodec.encode_output("scores", scores.numpy())]
        return InferenceResponse(model_name=self.name, outputs=outputs)


def main() -> None:
    grpc_port, metrics_port = free_port(), free_port()
    settings = Settings(
        debug=False,
        host="127.0.0.1",
        http_port=given.port(),
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        parallel_workers=0,
    )
    gathered = given.batch_size()
    batching = {"max_batch_size": gathered, "max_batch_time": GATHER_S} if gathered > 1 else {}
    model = ModelSettings(name="mlp", implementation=f"{__package__}.with_mlserver.Classifier", **batching)
    asyncio.run(serve(settings, model))


async def serve(settings: Settings, model: ModelSettings) -> None:
    await MLServer(settings).start([model])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
