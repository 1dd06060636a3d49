"""`Idempotency-Key`: the first answer is stored in the transaction that does the work, and given again."""

import hashlib
from dataclasses import dataclass
from typing import Any

from litestar import Response
from sqlalchemy.ext.asyncio import AsyncSession

from core.db.models import IdempotentReply, utc_now
from core.db.statements import keys
from core.errors import Conflict, Invalid

REPLAYED = {"Idempotency-Replayed": "true"}


@dataclass(frozen=True)
class Once:
    """One request of one owner. Without a key every request stands for itself."""

    owner: str
    route: str
    key: str | None
    body_sha256: str

    @classmethod
    def of(cls, owner: str, route: str, key: str | None, body: bytes) -> "Once":
        return cls(owner, route, key, hashlib.sha256(body).hexdigest())

    async def earlier(self, session: AsyncSession) -> Response[dict[str, Any]] | None:
        """The first answer to this key, if there was one. Raises Invalid where its body was another."""
        if self.key is None:
            return None
        query = keys.find_reply(self.owner, self.route, self.key)
        first = (await session.scalars(query)).one_or_none()
        if first is None:
            return None
        if first.body_sha256 != self.body_sha256:
            raise Invalid(
                f"The Idempotency-Key {self.key!r} came with another body before; take a new one.",
                code="idempotency_mismatch",
            )
        headers = {**first.reply["headers"], **REPLAYED}
        return Response(first.reply["body"], status_code=first.status, headers=headers)

    def remember(self, session: AsyncSession, status: int, body: Any, headers: dict[str, str]) -> None:
        """`body` as builtins. Goes with the transaction of the work itself."""
        if self.key is None:
            return
        session.add(
            IdempotentReply(
                owner=self.owner,
                route=self.route,
                key=self.key,
                body_sha256=self.body_sha256,
                status=status,
                reply={"headers": headers, "body": body},
                created_at=utc_now(),
            )
        )


def in_flight() -> Conflict:
    """Another request with the same key was quicker and has not been answered yet."""
    return Conflict(
        "A request with this Idempotency-Key is still being answered; send it again in a moment.",
        code="idempotency_in_flight",
        retry_after_s=1,
    )
