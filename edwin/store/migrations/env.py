"""Alembic's way in: migrate the database behind the connection handed over."""

from alembic import context

from edwin.store.tables import metadata

# The caller began the transaction and ends it: half a migration is none.
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    transactional_ddl=True,
)
context.run_migrations()
