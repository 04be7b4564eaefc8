"""Who has a token of its own, and what everybody has used of their tokens.

The base of ``store``; principals are few and change seldom.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, delete, func, select

from edwin.store import dialect
from edwin.store.database import Database
from edwin.store.tables import principals, runs


class StoredPrincipal(NamedTuple):
    """A principal as the store has it.

    Attributes:
        id: Its name.
        document: What it may do, as JSON text in the shape of the configuration.
        digest: SHA-256 of its token.
        created_at: Unix seconds: when it was made, or its token last changed.

    """

    id: str
    document: str
    digest: bytes
    created_at: float


class People(Database):
    """Principals and their use, in the database."""

    async def principals(self) -> list[StoredPrincipal]:
        """Return all principals, by name.

        Raises:
            StorageUnavailable: If the database cannot be read.

        """
        query = select(principals).order_by(principals.c.id)
        return await self._read(
            lambda c: [StoredPrincipal(*row) for row in c.execute(query)]
        )

    async def put_principal(self, principal: StoredPrincipal) -> None:
        """Keep *principal* in place of one with the same name; durable on return.

        Raises:
            StorageUnavailable: If the disk or a lock is in the way.

        """

        def put(connection: Connection) -> None:
            new = dialect.insert(connection.dialect.name, principals).values(
                principal._asdict()
            )
            changed = {name: new.excluded[name] for name in principal._fields[1:]}
            connection.execute(
                new.on_conflict_do_update(index_elements=["id"], set_=changed)
            )

        await self._running().call(put)

    async def remove_principal(self, id: str) -> bool:
        """Forget the principal with this *id*; False if there is none.

        Raises:
            StorageUnavailable: If the disk or a lock is in the way.

        """
        step = delete(principals).where(principals.c.id == id)
        return await self._running().call(lambda c: c.execute(step).rowcount > 0)

    async def tokens_since(self, principal: str, at: float) -> int:
        """Return the tokens that *principal*'s runs have used that ended since *at*.

        Raises:
            StorageUnavailable: If the database cannot be read.

        """
        query = select(func.sum(runs.c.prompt_tokens + runs.c.completion_tokens)).where(
            runs.c.principal == principal,
            # No run is longer than a day, and by this there is an index.
            runs.c.created_at >= at - 86_400,
            runs.c.finished_at >= at,
        )
        return int(await self._read(lambda c: c.execute(query).scalar()) or 0)
