"""The clients: `Client` blocks, `AsyncClient` is awaited; both tell the same stories.

with Client() as client:
    client.datasets.push("mnist", "mnist.zip")
    job = client.jobs.submit({"name": "mnist-mlp", "dataset": "mnist", "model": {…}})
    for happening in job.watch():
        print(happening)
    print(client.models.predict_image("mnist-mlp", "seven.png").predictions[0].label)
"""

from types import TracebackType
from typing import Self

import httpx2

from modelyard.address import is_loopback, resolve_key, resolve_url
from modelyard.resources.batch_predictions import BatchPredictions
from modelyard.resources.checkpoints import Checkpoints
from modelyard.resources.datasets import Datasets
from modelyard.resources.jobs import Jobs
from modelyard.resources.keys import Keys
from modelyard.resources.models import Models
from modelyard.resources.resumable import Uploads
from modelyard.resources.webhooks import Webhooks
from modelyard.specs import AuditEntry, ComponentInfo
from modelyard.transport import calls
from modelyard.transport.resource import R, Resource, operation, streaming
from modelyard.transport.runners import AsyncHttpRunner, HttpRunner
from modelyard.transport.story import AsyncRunner, Story, Stream, SyncRunner

__all__ = ["AsyncClient", "Client"]


class Service(Resource[R]):
    """What both clients offer."""

    def __init__(self, runner: R) -> None:
        super().__init__(runner)
        self.datasets = Datasets(runner)
        self.jobs = Jobs(runner)
        self.models = Models(runner)
        self.batch_predictions = BatchPredictions(runner)
        self.checkpoints = Checkpoints(runner)
        self.uploads = Uploads(runner)
        self.keys = Keys(runner)
        self.webhooks = Webhooks(runner)

    @operation
    def components(self, family: str | None = None) -> Story[list[ComponentInfo]]:
        """All that a spec may name, or only one family such as `layer` or `optimizer`."""
        return (yield from self._fetch(calls.get("/v1/components", family=family), list[ComponentInfo]))

    @streaming
    def audit(self, key: str | None = None) -> Stream[AuditEntry]:
        """Every request that changed something, the newest first; with `key` only what the key of this id
        asked for. Needs a key with the scope admin."""
        yield from self._pages(calls.get("/v1/audit", key=key), AuditEntry)

    @operation
    def health(self) -> Story[dict[str, object]]:
        """What `/health/ready` says. Raises Unavailable where the service is not ready; asks once."""
        call = calls.get("/health/ready")
        return (yield from calls.fetch(call, dict[str, object], max_retries=0))


class Client(Service[SyncRunner]):
    """The blocking client. May be used from several threads; close it, or use it in a `with`.

    `base_url`: else MODELYARD_URL, else http://127.0.0.1:8000. `key`: else MODELYARD_KEY, else, on
    loopback, the file admin.key in MODELYARD_HOME or ~/.modelyard. `timeout_s` bounds connecting and
    each silence of the service, not the length of an upload or of a wait. `max_retries` bounds how
    often a call that may be repeated is sent again when the service is not there or asks to come back.
    Raises InvalidArgument where `base_url` is no URL.
    """

    def __init__(
        self,
        base_url: str | None = None,
        key: str | None = None,
        timeout_s: float = 30,
        transport: httpx2.BaseTransport | None = None,
        *,
        max_retries: int = 3,
    ) -> None:
        self.base_url = resolve_url(base_url)
        self._http = httpx2.Client(
            base_url=self.base_url,
            headers=_headers(resolve_key(key, self.base_url)),
            timeout=timeout_s,
            transport=transport,
            trust_env=not is_loopback(self.base_url),  # a proxy knows nothing of this machine's loopback
        )
        super().__init__(HttpRunner(self._http, max_retries))

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncClient(Service[AsyncRunner]):
    """The client for asyncio; arguments as for `Client`. Close it with `aclose`, or use `async with`."""

    def __init__(
        self,
        base_url: str | None = None,
        key: str | None = None,
        timeout_s: float = 30,
        transport: httpx2.AsyncBaseTransport | None = None,
        *,
        max_retries: int = 3,
    ) -> None:
        self.base_url = resolve_url(base_url)
        self._http = httpx2.AsyncClient(
            base_url=self.base_url,
            headers=_headers(resolve_key(key, self.base_url)),
            timeout=timeout_s,
            transport=transport,
            trust_env=not is_loopback(self.base_url),  # a proxy knows nothing of this machine's loopback
        )
        super().__init__(AsyncHttpRunner(self._http, max_retries))

    async def aclose(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def _headers(key: str | None) -> dict[str, str]:
    return {
        "Accept": "application/json, application/problem+json, */*;q=0.1",
        "User-Agent": "modelyard-python",
        **({"Authorization": f"Bearer {key}"} if key else {}),
    }
