"""The schema's history, as Alembic revisions; read by ``store.upgrade`` alone."""
