"""Aliases move here, one move at a time in each model, and each is written down with who, when and why.

A move is one commit, that of `moving`: who asked before it gets the version before, who asks after it the
new one. Deleting a version takes its turn there too, so that no alias ever names one that is gone.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from core.db.models import Alias, AliasMove, Version, utc_now
from core.db.statements import aliases, models
from core.errors import Conflict
from modelyard.specs import AliasUpdate, Compared, Model, MoveKind
from service.auth import Principal
from service.models import require_model, require_ready, unknown_alias, unknown_model
from service.parts import Parts
from service.requirements import compare

#: A comparison is made before the alias is locked. Where it moves meanwhile it is made again, so often.
TRIES = 3

#: Moves that a rollback reads at once on its way back.
BLOCK = 500


@asynccontextmanager
async def moving(parts: Parts, owner: str, name: str) -> AsyncIterator[AsyncSession]:
    """Alone with the aliases and versions of a model until the block ends, and committed then. Raises
    NotFound where there is no such model."""
    async with parts.database.write() as session:
        if (await session.scalars(models.lock_model(owner, name))).one_or_none() is None:
            raise unknown_model(name)
        yield session
        await session.commit()
    parts.names.forget(owner, name)


async def set_alias(parts: Parts, who: Principal, name: str, alias: str, wanted: AliasUpdate) -> Model:
    """The model as it then is. Where the alias names the version already, nothing moves. Raises Invalid,
    NotFound, or Conflict where the requirement does not hold."""
    for _ in range(TRIES):
        incumbent, required = await _required(parts, who.owner, name, alias, wanted)
        async with moving(parts, who.owner, name) as session:
            model = await require_model(session, who.owner, name)
            await require_ready(session, who.owner, name, wanted.version)
            current = model.aliases.get(alias)
            if wanted.require is not None and current != incumbent:
                continue  # what was compared is not what would be replaced
            if current != wanted.version:
                last = await _last_move(session, who.owner, name, alias)
                behind = last.seq if last is not None and last.to_version is not None else None
                await _move(
                    session,
                    who,
                    name,
                    alias,
                    last=last,
                    kind=MoveKind.SET,
                    version=wanted.version,
                    behind=behind,
                    reason=wanted.reason,
                    required=required,
                )
            return await require_model(session, who.owner, name)
    raise Conflict(
        f"{name}@{alias} moved while it was compared with version {wanted.version}; send the same again.",
        code="alias_moved",
        retry_after_s=1,
    )


async def remove_alias(parts: Parts, who: Principal, name: str, alias: str) -> None:
    """Its history stays. An alias that is set again begins anew: no rollback goes back behind this."""
    async with moving(parts, who.owner, name) as session:
        last = await _standing(session, who.owner, name, alias)
        await _move(session, who, name, alias, last=last, kind=MoveKind.DELETE, version=None)


async def roll_back(parts: Parts, who: Principal, name: str, alias: str, reason: str | None) -> Model:
    """To the version before, and with the next call to the one before that; past those that are gone. Raises
    Conflict where there is none."""
    async with moving(parts, who.owner, name) as session:
        last = await _standing(session, who.owner, name, alias)
        target = await _before(session, last)
        if target is None:
            raise Conflict(
                f"{name}@{alias} is version {last.to_version}, and no version before it is still there; "
                f"PUT /v1/models/{name}/aliases/{alias} names any other.",
                code="no_version_before",
            )
        await _move(
            session,
            who,
            name,
            alias,
            last=last,
            kind=MoveKind.ROLLBACK,
            version=target.to_version,
            behind=target.behind,
            reason=reason,
        )
        return await require_model(session, who.owner, name)


async def _required(
    parts: Parts, owner: str, name: str, alias: str, wanted: AliasUpdate
) -> tuple[int | None, Compared | None]:
    """The version that the alias named when it was compared, and the requirement that held."""
    if wanted.require is None:
        return None, None
    incumbent: Version | None = None
    async with parts.database.read() as session:
        model = await require_model(session, owner, name)
        candidate = await require_ready(session, owner, name, wanted.version)
        number = model.aliases.get(alias)
        if number is not None:
            incumbent = (await session.scalars(models.get_version(owner, name, number))).one_or_none()
    if number == wanted.version:
        return number, None
    return number, await compare(parts, wanted.require, candidate, incumbent)


async def _standing(session: AsyncSession, owner: str, name: str, alias: str) -> AliasMove:
    """The move that made the alias name what it does."""
    model = await require_model(session, owner, name)
    if alias not in model.aliases:
        raise unknown_alias(model, alias)
    last = await _last_move(session, owner, name, alias)
    assert last is not None, "whatever sets an alias writes it down"
    return last


async def _last_move(session: AsyncSession, owner: str, name: str, alias: str) -> AliasMove | None:
    return (await session.scalars(aliases.last_move(owner, name, alias))).one_or_none()


async def _before(session: AsyncSession, last: AliasMove) -> AliasMove | None:
    """The nearest move behind this one to another version that can still predict."""
    ready = set(await session.scalars(models.ready_numbers(last.owner, last.model)))
    read: dict[int, AliasMove] = {}
    seq = last.behind
    while seq is not None:
        if seq not in read:
            query = aliases.moves_before(last.owner, last.model, last.alias, seq + 1, BLOCK)
            read = {move.seq: move for move in await session.scalars(query)}
        move = read[seq]
        if move.to_version in ready and move.to_version != last.to_version:
            return move
        seq = move.behind
    return None


async def _move(
    session: AsyncSession,
    who: Principal,
    name: str,
    alias: str,
    *,
    last: AliasMove | None,
    kind: MoveKind,
    version: int | None,
    behind: int | None = None,
    reason: str | None = None,
    required: Compared | None = None,
) -> None:
    """The alias and the next line of its history."""
    now = utc_now()
    session.add(
        AliasMove(
            owner=who.owner,
            model=name,
            alias=alias,
            seq=last.seq + 1 if last is not None else 1,
            kind=kind,
            from_version=last.to_version if last is not None else None,
            to_version=version,
            behind=behind,
            key_id=who.key_id,
            key_name=who.key_name,
            reason=reason,
            required=msgspec.to_builtins(required),
            at=now,
        )
    )
    if version is None:
        await session.execute(aliases.delete_alias(who.owner, name, alias))
    else:
        row = Alias(owner=who.owner, model=name, alias=alias, version=version, updated_at=now)
        await session.merge(row)
    await session.flush()
