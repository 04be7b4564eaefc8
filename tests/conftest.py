"""What every test is held to: no unexpected ERROR line, no task left behind."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest
from tornado.ioloop import IOLoop


class _Errors(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture(autouse=True)
def error_log(request: pytest.FixtureRequest) -> Iterator[list[logging.LogRecord]]:
    """Fail the test for ERROR lines it did not take out of this list."""
    handler = _Errors()
    logging.getLogger().addHandler(handler)
    yield handler.records
    logging.getLogger().removeHandler(handler)
    assert not handler.records, [record.getMessage() for record in handler.records]


@pytest.fixture
def io_loop() -> Iterator[IOLoop]:
    """Return a fresh IOLoop; a task that outlives the test fails it."""
    loop = IOLoop(make_current=True)
    yield loop
    left = {task for task in asyncio.all_tasks(loop.asyncio_loop) if not task.done()}
    loop.close()
    assert not left, f"tasks left behind: {left}"
