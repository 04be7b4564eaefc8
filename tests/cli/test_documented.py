"""The commands as the documents have them."""

from __future__ import annotations

import re

import click
import pytest

from edwin.cli import (
    backup,
    doctor,
    main,
    restore,
    runs_group,
    sessions_group,
    token_group,
)
from edwin.cli.bundle import CONTENTS
from tests.test_docs import DOCS, quoted, section, table

PAGE = DOCS["cli"]
COMMANDS = {
    f"{group.name} {name}": command
    for group in (runs_group, sessions_group, token_group)
    for name, command in group.commands.items()
} | {command.name: command for command in (backup, restore, doctor)}


@pytest.mark.parametrize("name", COMMANDS)
def test_cli_options_are_documented(name):
    """Every option of a command stands in the docs, and no other does."""
    shown = {
        option
        for row in table(section(PAGE, f"### `edwin {name}`"))
        for option in re.findall(r"(?<![\w-])--\w[\w-]*", row[0])
    }
    options = (p for p in COMMANDS[name].params if isinstance(p, click.Option))
    assert shown == {name for option in options for name in option.opts}


def test_cli_commands_are_documented():
    """Every command has its place in the docs, and no other has one."""
    text = PAGE.read_text("utf-8")
    shown = re.findall(r"^### `edwin ([\w ]+)`$", text, re.MULTILINE)
    assert sorted(shown) == sorted(COMMANDS)
    here = {name.split()[0] for name in COMMANDS}
    assert here | {"gateway", "agent"} == set(main.commands)


def test_cli_backup_is_documented():
    """What is in a backup stands in the docs."""
    rows = table(section(PAGE, "## Backups").split("\n### ")[0])
    assert [quoted(row[0]) for row in rows] == ["manifest.json", *CONTENTS]
