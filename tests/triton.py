"""NVIDIA's own client, as it is installed, against a service that has a model of each kind."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from core.nets.artifacts import VersionManifest
from tests import described
from tests.running_service import Owner, RunningService, run_service

MODELS = {
    "images": described.images,
    "table": described.table,
    "text": described.text,
    "arrays": described.arrays,
    "regressor": described.regressor,
}

#: [rows, 3]
ROWS = np.array([[0.5, -1.0, 2.0], [3.0, 0.0, 1.0]], dtype=np.float32)


@dataclass(frozen=True)
class Zoo:
    """An owner with version 1 of each of `MODELS`; `arrays` has a second one, and `production` is its
    first."""

    service: RunningService
    owner: Owner
    nets: dict[str, list[nn.Module]]

    @property
    def address(self) -> str:
        """As this client wants it: without a scheme."""
        return self.service.url.removeprefix("http://")

    def register(self, name: str, manifest: VersionManifest, net: nn.Module) -> None:
        self.owner.version(self.service.settings, net, model=name, described=manifest)
        self.nets.setdefault(name, []).append(net)

    def scores(self, name: str, *inputs: Any, version: int = 1) -> np.ndarray:
        """[rows, classes] by plain torch, of what the net itself takes."""
        with torch.inference_mode():
            outputs = self.nets[name][version - 1](*map(torch.as_tensor, inputs))
            return np.asarray(outputs.softmax(dim=1))


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zoo]:
    home = tmp_path_factory.mktemp("zoo")
    with run_service(f"sqlite:///{home / 'modelyard.db'}", home) as service, service.owner() as owner:
        made = Zoo(service, owner, {})
        for name, describe in MODELS.items():
            made.register(name, *describe())
        manifest, net = described.arrays()
        nn.init.uniform_(net.weight)
        made.register("arrays", manifest, net)
        reply = owner.client.put("/v1/models/arrays/aliases/production", json={"version": 1})
        assert reply.status_code == 200
        yield made


class AioTwin:
    """The aio client with the calls of the sync one."""

    def __init__(self, runner: asyncio.Runner, client: Any) -> None:
        self._runner = runner
        self._client = client

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)
        return lambda *values, **named: self._runner.run(method(*values, **named))


@pytest.fixture(params=["sync", "aio"])
def anonymous(request: pytest.FixtureRequest, zoo: Zoo) -> Iterator[Any]:
    """Without a key."""
    import tritonclient.http
    import tritonclient.http.aio

    if request.param == "sync":
        with tritonclient.http.InferenceServerClient(zoo.address) as client:
            yield client
        return
    with asyncio.Runner() as runner:

        async def opened() -> Any:
            return tritonclient.http.aio.InferenceServerClient(zoo.address)

        client = runner.run(opened())
        yield AioTwin(runner, client)
        runner.run(client.close())


@pytest.fixture
def triton(anonymous: Any, zoo: Zoo) -> Any:
    """With the owner's key on every call."""
    import tritonclient.http

    class Key(tritonclient.http.InferenceServerClientPlugin):  # type: ignore[misc]  # it ships no types
        def __call__(self, request: Any) -> None:
            request.headers["authorization"] = f"Bearer {zoo.owner.key}"

    client = anonymous._client if isinstance(anonymous, AioTwin) else anonymous
    client.register_plugin(Key())
    return anonymous


def tensor(name: str, values: Any, datatype: str | None = None, *, binary: bool = True) -> Any:
    """An input as its users make it."""
    from tritonclient.http import InferInput
    from tritonclient.utils import np_to_triton_dtype

    array = np.asarray(values)
    made = InferInput(name, list(array.shape), datatype or np_to_triton_dtype(array.dtype))
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def wanted(name: str, **options: Any) -> Any:
    from tritonclient.http import InferRequestedOutput

    return InferRequestedOutput(name, **options)
