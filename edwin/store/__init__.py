"""STORE: what outlives the process, and the only importer of SQLAlchemy and Alembic.

``store`` is the front door; ``changes`` and ``queries`` are what it writes and reads,
``removal`` is what it removes, ``database`` the threads it does so on, ``writer`` the
one that commits, ``tables`` the schema, ``upgrade`` and ``recovery`` what a start does,
``dialect`` what differs between databases.
"""

from edwin.store.people import StoredPrincipal
from edwin.store.store import Store

__all__ = ["Store", "StoredPrincipal"]
