"""`modelyard webhooks`: who is told when a job ends, a version is registered, an alias moves."""

from itertools import islice

from cyclopts import App

from modelyard.cli.session import AsJson, Count, Shared
from modelyard.specs import DeliveryState, WebhookEvent

app = App(name="webhooks", help="Who is told when a job ends, a version is registered, an alias moves.")


@app.command
def create(url: str, *events: str, as_json: AsJson = False, session: Shared) -> None:
    """Send events to a URL, and print the secret that signs them, which is not shown again.

    Args:
        url: https://… with a public address
        events: job.succeeded, job.failed, job.cancelled, version.registered, …; all where none is given
    """
    with session.client() as client:
        made = client.webhooks.create(url, events or tuple(WebhookEvent))
    if as_json:
        session.show_json(made)
        return
    session.show_fields((("webhook", made.id), ("events", made.events), ("secret", made.secret)))


@app.command(name="list")
def list_(*, limit: Count = 50, as_json: AsJson = False, session: Shared) -> None:
    """Every webhook, newest first.

    Args:
        limit: show so many at most
    """
    with session.client() as client:
        found = list(islice(client.webhooks.list(), limit))
    if as_json:
        session.show_json(found)
        return
    session.show_table(
        ("id", "state", "events", "url", "created"),
        ((w.id, w.state, w.events, w.url, w.created_at) for w in found),
    )


@app.command
def delete(webhook: str, *, session: Shared) -> None:
    """Delete a webhook, and what waits to be sent to it.

    Args:
        webhook: its id
    """
    with session.client() as client:
        client.webhooks.delete(webhook)
    session.say(f"deleted {webhook}")


@app.command
def deliveries(
    webhook: str,
    *,
    state: DeliveryState | None = None,
    limit: Count = 50,
    as_json: AsJson = False,
    session: Shared,
) -> None:
    """How the messages to a webhook fared, newest first.

    Args:
        webhook: its id
        state: only those in this state; dead are the dead letters
        limit: show so many at most
    """
    with session.client() as client:
        found = list(islice(client.webhooks.deliveries(webhook, state), limit))
    if as_json:
        session.show_json(found)
        return
    session.show_table(
        ("id", "type", "about", "state", "attempts", "status", "error", "created"),
        (
            (d.id, d.type, d.data.get("id"), d.state, d.attempts, d.status, d.error, d.created_at)
            for d in found
        ),
    )


@app.command
def replay(webhook: str, delivery: str | None = None, *, session: Shared) -> None:
    """Send dead letters again; enables a webhook that was disabled.

    Args:
        webhook: its id
        delivery: only this message; else all dead letters
    """
    with session.client() as client:
        again = client.webhooks.replay(webhook, delivery)
    session.say(f"{again.replayed} to be sent again")
