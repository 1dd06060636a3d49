"""Every request passes here once, before its body is read: who asks, how often, may they."""

import base64
import hashlib
import math

from litestar.types import HTTPScope

from core.errors import Forbidden, TooMany, Unauthenticated
from core.settings import Settings
from service.addresses import Addresses, group_of
from service.auth import EVERYBODY, Principal, Scope
from service.buckets import Buckets
from service.keyring import Keyring
from service.keys import digest_of

#: So many times the rate of wrong keys may come at once.
WRONG_BURST = 10


class Gate:
    """`keys` are the buckets of keys by id. Wrong keys are counted by the client's address."""

    def __init__(self, settings: Settings, keyring: Keyring, keys: Buckets, addresses: Addresses) -> None:
        self._is_open = settings.auth == "off"
        self._is_counting = settings.requests_per_s > 0
        self._keyring, self._keys, self._addresses = keyring, keys, addresses
        self._wrong = Buckets(settings.wrong_keys_per_s, settings.wrong_keys_per_s * WRONG_BURST)

    async def admit(self, scope: HTTPScope, authorization: str | None, needed: Scope) -> Principal:
        """Raises Unauthenticated for no key or a wrong one, Forbidden for one without the scope, TooMany for
        one that asks too often, and for an address that shows too many wrong ones."""
        if self._is_open:
            return EVERYBODY
        principal = await self._principal(scope, authorization)
        if self._is_counting and principal.key_id is not None:
            wait_s = self._keys.take(principal.key_id)
            if wait_s > 0:
                raise TooMany(
                    f"This key may ask {self._keys.per_s:g} times a second and {self._keys.burst:g} times at "
                    "once, and has; wait as long as Retry-After says.",
                    code="rate_limited",
                    retry_after_s=math.ceil(wait_s),
                )
        if not principal.may(needed):
            raise Forbidden(f"This route needs a key with the scope {needed!s}; yours lacks it.")
        return principal

    async def still_admits(self, principal: Principal) -> bool:
        """Whether the key of a request that goes on works still. Raises what the database raises."""
        return principal.digest is None or await self._is_good(principal.digest)

    async def _principal(self, scope: HTTPScope, authorization: str | None) -> Principal:
        kind, _, key = (authorization or "").partition(" ")
        if kind.lower() != "bearer" or not key:
            raise Unauthenticated("Expected the header `Authorization: Bearer mdy_…`; send your key in it.")
        address: str | None = None
        try:
            # One that is remembered was found to be well-formed before.
            key = key.strip()
            known = self._keyring.known(hashlib.sha256(key.encode()).digest())
            if known is not None:
                return known
            digest = digest_of(key)
            address = group_of(self._addresses.of(scope))
            self._require_few_wrong(address)
            return await self._keyring.look_up(digest)
        except Unauthenticated:
            address = address or group_of(self._addresses.of(scope))
            self._require_few_wrong(address)
            self._wrong.take(address)
            raise

    def _require_few_wrong(self, address: str) -> None:
        wait_s = self._wrong.wait_s(address)
        if wait_s > 0:
            raise TooMany(
                "Too many wrong keys came from this address; wait as long as Retry-After says, then send a "
                "right one.",
                code="too_many_wrong_keys",
                retry_after_s=math.ceil(wait_s),
            )

    async def _is_good(self, digest: bytes) -> bool:
        if self._keyring.known(digest) is not None:
            return True
        try:
            await self._keyring.look_up(digest)
        except Unauthenticated:
            return False
        return True


def bearer_of(authorization: str | None) -> str | None:
    """The same as a Bearer header where the key is the password of a Basic one; else as it came."""
    kind, _, encoded = (authorization or "").partition(" ")
    if kind.lower() != "basic":
        return authorization
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True).decode("latin-1")
    except ValueError:
        return authorization
    return f"Bearer {decoded.partition(':')[2]}"
