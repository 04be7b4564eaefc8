"""The ``edwin`` command.

Exit codes: 0 done, 1 it failed, 2 the command line or the configuration is wrong,
130 interrupted.

A file for each command or group of them; what they need beside click they import when
they are run.  ``reach`` is how they come by what a gateway keeps, ``output`` how they
print it, ``bundle`` what a backup is made of.
"""

from __future__ import annotations

import click

from edwin import __version__
from edwin.cli.backup import backup, restore
from edwin.cli.doctor import doctor
from edwin.cli.runs import runs_group
from edwin.cli.serve import gateway
from edwin.cli.sessions import sessions_group
from edwin.cli.talk import agent
from edwin.cli.tokens import token_group

__all__ = [
    "agent",
    "backup",
    "doctor",
    "gateway",
    "main",
    "restore",
    "runs_group",
    "sessions_group",
    "token_group",
]


@click.group()
@click.version_option(__version__, prog_name="edwin")
def main() -> None:
    """Agents behind one port that speaks the OpenAI API."""


for _command in (
    *(gateway, agent, sessions_group, runs_group, token_group),
    *(backup, restore, doctor),
):
    main.add_command(_command)
