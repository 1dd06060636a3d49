"""What must hold before the first request, and the first key. Each refusal says what to do."""

import asyncio
import ipaddress
import os
from pathlib import Path

from sqlalchemy import Connection, inspect, select
from sqlalchemy.exc import DBAPIError

from core import ids
from core.db.engines import AsyncDatabase, open_database
from core.db.models import REVISION, Base, Key, SchemaFloor, utc_now
from core.db.statements import keys as statements
from core.nets import plugins
from core.settings import Settings
from service.addresses import Addresses
from service.auth import DEFAULT_OWNER, Scope
from service.keys import digest_of, new_key
from service.webhooks.addresses import Allowed


class CannotStart(Exception):
    """The message is for whoever started the process."""


def require_safe_address(settings: Settings) -> None:
    """Without keys everybody who reaches the port owns everything: loopback only, unless told otherwise."""
    if settings.auth == "off" and not settings.insecure and not is_loopback(settings.host):
        raise CannotStart(
            f"MODELYARD_AUTH=off works on a loopback address; MODELYARD_HOST is {settings.host}. "
            "Bind 127.0.0.1, turn keys on, or say MODELYARD_INSECURE=true."
        )


def require_networks(settings: Settings) -> None:
    try:
        Addresses(settings.trusted_proxies)
    except ValueError as error:
        raise CannotStart(
            f"MODELYARD_TRUSTED_PROXIES: {error}; name addresses or networks such as 10.0.0.0/8, by commas."
        ) from error


def require_webhook_networks(settings: Settings) -> None:
    """A network that is misspelt would silently allow nothing."""
    try:
        Allowed.of(settings.webhook_allow)
    except ValueError as error:
        raise CannotStart(
            f"MODELYARD_WEBHOOK_ALLOW holds networks, addresses and host names, by commas: {error}."
        ) from error


def load_plugins(settings: Settings) -> None:
    """Into this process, which serves predictions and lists components."""
    try:
        plugins.load(settings.plugins)
    except plugins.PluginError as error:
        raise CannotStart(str(error)) from error


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def require_schema(settings: Settings) -> None:
    """Every table and column that this code names must be there; more may be, so that old code runs
    beside an expanded schema. What was made for newer code alone says so in `schema_floor`."""
    database = open_database(settings.resolved_database_url())
    try:
        with database.engine.connect() as connection:
            missing = _missing(connection)
            floor = None if missing else connection.scalar(select(SchemaFloor.revision))
    except DBAPIError as error:
        name = database.engine.url.render_as_string(hide_password=True)
        raise CannotStart(f"The database {name} does not answer: {error.orig}") from error
    finally:
        database.close()
    if missing:
        named = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
        raise CannotStart(f"The database lacks {named}. Run `modelyard migrate`, then start again.")
    if floor is not None and floor > REVISION:
        raise CannotStart(
            f"The database's schema is for code of revision {floor} or newer, and this is of {REVISION}. "
            "Start the newer version, or restore a backup made before the migration."
        )


def _missing(connection: Connection) -> list[str]:
    inspector = inspect(connection)
    there = set(inspector.get_table_names())
    missing = []
    for table in Base.metadata.sorted_tables:
        if table.name not in there:
            missing.append(f"the table {table.name}")
            continue
        columns = {column["name"] for column in inspector.get_columns(table.name)}
        missing += [f"the column {table.name}.{name}" for name in sorted({*table.columns.keys()} - columns)]
    return missing


async def first_admin_key(settings: Settings, database: AsyncDatabase) -> Path | None:
    """Where no key works that may make others for every owner: makes one, and writes it to `<home>/admin.key`
    (0600). The path where one was written."""
    if settings.auth == "off":
        return None
    async with database.write() as session:
        working = await session.scalars(statements.lock_working(DEFAULT_OWNER, utc_now()))
        if any(Scope.ADMIN in row.scopes for row in working):
            return None
        key = new_key()
        session.add(
            Key(
                id=ids.key_id(),
                owner=DEFAULT_OWNER,
                name="admin",
                secret_sha256=digest_of(key),
                scopes=[Scope.ADMIN],
                created_at=utc_now(),
            )
        )
        # The file first: a key nobody can read would lock everybody out.
        path = settings.resolved_home() / "admin.key"
        await asyncio.to_thread(_write_secret, path, key)
        await session.commit()
    return path


def _write_secret(path: Path, key: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(key + "\n")
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
