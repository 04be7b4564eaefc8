"""All checks, in the order in which a start meets what they look at."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from edwin import __version__, state
from edwin import config as configuration
from edwin.config import Config
from edwin.doctor.certificate import check_tls
from edwin.doctor.database import check_store
from edwin.doctor.finding import PROBLEM, Finding, problem
from edwin.doctor.folder import check_folder
from edwin.doctor.machine import check_disk, check_files, check_port
from edwin.doctor.providers import check_providers
from edwin.doctor.settings import check_settings, refused
from edwin.doctor.versions import check_versions
from edwin.errors import ConfigError, StateError


class Report(NamedTuple):
    """What the doctor has to say.

    Attributes:
        configured: Whether the configuration can be used; else little was looked at.
        findings: What was found.

    """

    configured: bool
    findings: list[Finding]

    @property
    def healthy(self) -> bool:
        """Whether there is no problem."""
        return all(finding.level != PROBLEM for finding in self.findings)

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it: schema ``doctor/report``."""
        return {
            "object": "edwin.doctor",
            "version": __version__,
            "configured": self.configured,
            "healthy": self.healthy,
            "findings": [finding._asdict() for finding in self.findings],
        }


async def examine(path: Path | None, environ: Mapping[str, str]) -> Report:
    """Look at all that a gateway needs.

    Args:
        path: The configuration's file; None: the one that a gateway would take.
        environ: The environment.

    """
    try:
        config = configuration.load(path, environ=environ)
    except ConfigError as error:
        return Report(False, [*refused(error), *check_versions()])
    # Reading a store takes as long as it is large.
    asked, looked = await asyncio.gather(
        check_providers(config),
        asyncio.to_thread(lambda: list(_look(config, environ))),
    )
    return Report(True, [*looked, *asked, *check_versions()])


def _look(config: Config, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Yield what there is to be seen on this machine; on a thread."""
    yield from check_settings(config, environ)
    holder = None
    try:
        holder = state.holder(config.gateway.state_dir)
    except StateError as error:
        yield problem(
            "holder",
            error.message,
            "the gateway cannot start",
            "give the folder to the gateway's user",
        )
    yield from check_folder(config, holder)
    yield from check_store(config, holder)
    yield from check_port(config, holder)
    yield from check_tls(config)
    yield from check_files(config)
    yield from check_disk(config)
