"""A store on a real file, started and stopped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tornado.ioloop import IOLoop

from edwin.store import Store
from tests.store.samples import SECRET


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the store's database is."""
    return tmp_path / "edwin.db"


@pytest.fixture
def url(path: Path) -> str:
    """Return the URL of the store."""
    return f"sqlite:///{path}"


@pytest.fixture
def store(io_loop: IOLoop, url: str) -> Iterator[Store]:
    """Return a new store, started."""
    store = Store(url)
    io_loop.run_sync(lambda: store.start([SECRET]))
    yield store
    io_loop.run_sync(store.stop)
