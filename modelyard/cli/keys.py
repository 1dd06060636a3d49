"""`modelyard keys`: who may ask the service what; `modelyard audit`: who changed what."""

from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Number

from modelyard.cli.session import AsJson, Count, Session, Shared
from modelyard.specs import Key, Scope

app = App(name="keys", help="Make, list, rotate and revoke API keys.")

#: `--days`: how long the new key works.
Days = Annotated[float | None, Parameter(validator=Number(gt=0))]


@app.command
def create(
    name: str,
    *scopes: Scope,
    owner: str | None = None,
    days: Days = None,
    as_json: AsJson = False,
    session: Shared,
) -> None:
    """Make a key and print it. It is shown this once.

    Args:
        name: a label
        scopes: what it may: read, train, predict, promote, admin
        owner: whose things it sees; else those of the key that asks
        days: how long it works; else until it is revoked
    """
    with session.client() as client:
        made = client.keys.create(name, scopes, owner, _after(days))
    _show(session, made, as_json)


@app.command(name="list")
def list_(*, limit: Count = 50, as_json: AsJson = False, session: Shared) -> None:
    """Every key, revoked ones too.

    Args:
        limit: show so many at most
    """
    with session.client() as client:
        found = list(islice(client.keys.list(), limit))
    if as_json:
        session.show_json(found)
        return
    session.show_table(
        ("key", "name", "owner", "scopes", "created", "expires", "revoked"),
        ((k.id, k.name, k.owner, k.scopes, k.created_at, k.expires_at, k.revoked_at) for k in found),
    )


@app.command
def rotate(
    key_id: str,
    *,
    overlap_s: int | None = None,
    days: Days = None,
    as_json: AsJson = False,
    session: Shared,
) -> None:
    """Make a key in the place of another and print it. It is shown this once.

    Args:
        key_id: the id of the old one, key_...
        overlap_s: for so many more seconds the old one works; else a day, 0 ends it at once
        days: how long the new one works; else as long as the old one was made for
    """
    with session.client() as client:
        made = client.keys.rotate(key_id, overlap_s, _after(days))
    _show(session, made, as_json)


@app.command
def revoke(key_id: str, *, session: Shared) -> None:
    """End a key for ever.

    Args:
        key_id: its id, key_...
    """
    with session.client() as client:
        client.keys.revoke(key_id)
    session.say(f"revoked {key_id}")


def audit(*, key_id: str | None = None, limit: Count = 50, as_json: AsJson = False, session: Shared) -> None:
    """Who changed what, the newest first.

    Args:
        key_id: only what the key of this id asked for
        limit: show so many changes at most
    """
    with session.client() as client:
        found = list(islice(client.audit(key_id), limit))
    if as_json:
        session.show_json(found)
        return
    session.show_table(
        ("at", "owner", "key", "name", "action", "target", "made", "from"),
        ((e.at, e.owner, e.key, e.name, e.action, e.target, e.made, e.address) for e in found),
    )


def _after(days: float | None) -> datetime | None:
    return None if days is None else datetime.now(UTC) + timedelta(days=days)


def _show(session: Session, made: Key, as_json: bool) -> None:
    if as_json:
        session.show_json(made)
        return
    session.remark(
        f"{made.id} of {made.owner} may {', '.join(made.scopes)}; this is the only time it is shown:"
    )
    session.say(str(made.key))
