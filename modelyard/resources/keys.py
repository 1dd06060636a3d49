"""API keys: made, rotated, revoked. All of it needs a key with the scope admin."""

from collections.abc import Iterable
from datetime import datetime

from modelyard.specs import Key
from modelyard.transport import calls
from modelyard.transport.calls import path
from modelyard.transport.resource import R, Resource, operation, streaming
from modelyard.transport.story import Story, Stream


class Keys(Resource[R]):
    """`client.keys`. A key is named by its id, `key_…`; the key itself is in `.key` of what made it, once."""

    @operation
    def create(
        self,
        name: str,
        scopes: Iterable[str],
        owner: str | None = None,
        expires_at: datetime | None = None,
    ) -> Story[Key]:
        """A new key; `expires_at` has a time zone. It is sent once: where the connection breaks off, look
        with `list` whether it was made, and revoke it, since nobody has seen it."""
        given = {"owner": owner, "expires_at": expires_at}
        body = {"name": name, "scopes": [*scopes], **{name: value for name, value in given.items() if value}}
        call = calls.send_json("POST", "/v1/keys", body, is_repeatable=False)
        return (yield from self._fetch(call, Key))

    @streaming
    def list(self) -> Stream[Key]:
        """Every key of one's owner, or of all where that is `default`, newest first; revoked ones too."""
        yield from self._pages(calls.get("/v1/keys"), Key)

    @operation
    def get(self, key_id: str) -> Story[Key]:
        return (yield from self._fetch(calls.get(path("/v1/keys/{}", key_id)), Key))

    @operation
    def rotate(
        self, key_id: str, overlap_s: int | None = None, expires_at: datetime | None = None
    ) -> Story[Key]:
        """A new key of the same name, owner and scopes; the old one works for `overlap_s` more seconds, a day
        where it is left out. Sent once, as `create`."""
        given = {"overlap_s": overlap_s, "expires_at": expires_at}
        body = {name: value for name, value in given.items() if value is not None}
        call = calls.send_json("POST", path("/v1/keys/{}/rotate", key_id), body, is_repeatable=False)
        return (yield from self._fetch(call, Key))

    @operation
    def revoke(self, key_id: str) -> Story[None]:
        """It works no more, within two seconds everywhere. Raises Conflict for the last key that may make
        others for every owner."""
        yield from self._send(calls.delete(path("/v1/keys/{}", key_id)))
