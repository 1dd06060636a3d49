"""The service starts beside a schema that has more than it knows, and not beside one that was made for newer
code alone."""

from pathlib import Path

import pytest
from sqlalchemy import text, update

import migrations
from core.db.engines import open_database
from core.db.models import SchemaFloor
from core.settings import Settings
from service.startup import CannotStart, require_schema


def migrate_further(url: str, floor: str) -> None:
    """As a later version would: another table, another revision, and perhaps a higher floor."""
    migrations.upgrade(url)
    database = open_database(url)
    with database.write() as session:
        session.execute(text("CREATE TABLE later (id INTEGER)"))
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        session.execute(update(SchemaFloor).values(revision=floor))
        session.commit()
    database.close()


def test_a_schema_that_only_grew_is_taken(database_url: str, tmp_path: Path) -> None:
    migrate_further(database_url, floor=migrations.head())
    require_schema(Settings(home=tmp_path, database_url=database_url))


def test_a_schema_that_was_made_for_newer_code_is_refused(database_url: str, tmp_path: Path) -> None:
    migrate_further(database_url, floor="9998")
    with pytest.raises(CannotStart, match=rf"revision 9998 or newer, and this is of {migrations.head()}"):
        require_schema(Settings(home=tmp_path, database_url=database_url))
