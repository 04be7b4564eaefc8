"""The store's schema: made, checked and brought up to date.

Called by ``store`` at its start, on a thread.  Alembic takes longer to import than
all the rest of a start, so it is imported only for a database that is behind.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, Engine, insert, inspect, select
from sqlalchemy.engine import URL

from edwin.errors import StateError
from edwin.store import dialect
from edwin.store.tables import HEAD, metadata, version

MIGRATIONS = Path(__file__).parent / "migrations"


def bring_up_to_date(engine: Engine, url: URL) -> None:
    """Leave the database with the tables of revision :data:`~tables.HEAD`.

    A new database gets them at once.  One that is behind is copied first
    (``<file>.before-<revision>``) and then migrated, all in one transaction.

    Raises:
        StateError: If the database is not Edwin's, or a newer Edwin made it.
        SQLAlchemyError, OSError, sqlite3.Error: If it cannot be read or written.

    """
    with engine.begin() as connection:
        if inspect(connection).has_table(version.name):
            found = connection.execute(select(version.c.version_num)).scalar()
        elif inspect(connection).get_table_names():
            raise StateError("the database holds the tables of another program")
        else:
            create(connection)
            return
    if found != HEAD:
        _migrate(engine, url, found)


def create(connection: Connection) -> None:
    """Make the tables of a new database, marked as of :data:`~tables.HEAD`."""
    metadata.create_all(connection, checkfirst=False)
    version.create(connection)
    connection.execute(insert(version).values(version_num=HEAD))


def _migrate(engine: Engine, url: URL, found: str | None) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    if found is not None:
        try:
            ScriptDirectory.from_config(config).get_revision(found)
        except CommandError as error:
            raise StateError(
                f"a newer Edwin made this store (revision {found}, "
                f"this one knows {HEAD}): start that one"
            ) from error
    dialect.copy_before(url, HEAD)
    with engine.connect() as connection:
        dialect.allow_rebuilds(connection)
        with connection.begin():
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
        # Its foreign keys are off for good.
        connection.invalidate()
