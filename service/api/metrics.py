"""`/metrics`: what Prometheus reads."""

from litestar import Controller, Response, get

from service.auth import Scope, needs
from service.bodies import AnyRequest
from service.metrics.page import page
from service.metrics.text import MEDIA_TYPE
from service.parts import Wired


class Metrics(Controller):
    path = "/metrics"
    tags = ("metrics",)
    opt = needs(Scope.READ)

    @get(media_type=MEDIA_TYPE)
    async def metrics(self, request: AnyRequest, parts: Wired) -> Response[bytes]:
        """Counters, gauges and histograms as text for Prometheus. Series of models are of the key's owner
        alone."""
        return Response(await page(parts, request.user.owner), media_type=MEDIA_TYPE)
