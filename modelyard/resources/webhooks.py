"""Webhooks: who is told when a job ends, a version is registered, an alias moves."""

from collections.abc import Iterable

from modelyard.specs import CreatedWebhook, Delivery, DeliveryState, Replayed, Webhook, WebhookEvent
from modelyard.transport import calls
from modelyard.transport.calls import path
from modelyard.transport.resource import R, Resource, operation, streaming
from modelyard.transport.story import Story, Stream


class Webhooks(Resource[R]):
    """`client.webhooks`."""

    @operation
    def create(self, url: str, events: Iterable[WebhookEvent | str]) -> Story[CreatedWebhook]:
        """From now on each of `events` is sent to `url` with POST. Keep the `secret` of the answer: the
        receiver verifies with it, and it is not shown again."""
        body = {"url": url, "events": [*events]}
        # A second one would be told everything too: it is sent once.
        call = calls.send_json("POST", "/v1/webhooks", body, is_repeatable=False)
        return (yield from self._fetch(call, CreatedWebhook))

    @streaming
    def list(self) -> Stream[Webhook]:
        """Every webhook, newest first."""
        yield from self._pages(calls.get("/v1/webhooks"), Webhook)

    @operation
    def get(self, webhook: str) -> Story[Webhook]:
        return (yield from self._fetch(calls.get(path("/v1/webhooks/{}", webhook)), Webhook))

    @operation
    def delete(self, webhook: str) -> Story[None]:
        """What waits to be sent to it goes too."""
        yield from self._send(calls.delete(path("/v1/webhooks/{}", webhook)))

    @streaming
    def deliveries(self, webhook: str, state: DeliveryState | str | None = None) -> Stream[Delivery]:
        """Every message to a webhook, newest first; with `state="dead"` its dead letters."""
        call = calls.get(path("/v1/webhooks/{}/deliveries", webhook), state=state)
        yield from self._pages(call, Delivery)

    @operation
    def replay(self, webhook: str, delivery: str | None = None) -> Story[Replayed]:
        """Send all dead letters again, or one message that has ended, with the ids that they had; enables a
        webhook that was disabled."""
        body = {"delivery": delivery} if delivery is not None else {}
        call = calls.send_json("POST", path("/v1/webhooks/{}/replay", webhook), body, is_repeatable=True)
        return (yield from self._fetch(call, Replayed))
