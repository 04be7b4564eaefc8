"""``edwin doctor``: what is wrong, why that matters, and what to do."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import click

from edwin.cli import output
from edwin.cli.common import config_option

MARKS = {"ok": "ok      ", "warning": "warning ", "problem": "PROBLEM "}


@click.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def doctor(path: Path | None, as_json: bool) -> None:
    """Look at all that a gateway needs, and change nothing."""
    from edwin.doctor import Report, examine

    async def work() -> Report:
        return await examine(path, os.environ)

    try:
        report = asyncio.run(work())
    except KeyboardInterrupt:
        sys.exit(130)
    if as_json:
        output.echo_json(report.document())
    else:
        for finding in report.findings:
            click.echo(output.printable(f"{MARKS[finding.level]}{finding.what}"))
            if finding.why:
                click.echo(output.printable(f"        {finding.why}"))
            if finding.fix:
                click.echo(output.printable(f"        → {finding.fix}"))
    if not report.configured:
        sys.exit(2)
    sys.exit(0 if report.healthy else 1)
