"""What the configuration says, and what it only seems to say."""

from __future__ import annotations

import re

import pytest

from edwin.config import load
from edwin.doctor.settings import VARIABLES, check_settings
from tests.test_docs import DOCS

FILE = """\
gateway:
  auth: { token: "${EDWIN_MY_TOKEN:-a-token-for-tests}" }
models:
  providers:
    openai:
      api: openai-completions
      baseUrl: https://api.openai.com/v1
      apiKey: ${OPENAI_API_KEY}
"""
PLAIN = "gateway: { port: 18789 }\n"
LITERAL = "gateway: { auth: { token: a-token-for-tests } }\n"
KEY = FILE.replace("${OPENAI_API_KEY}", "sk-123")
SET = {"OPENAI_API_KEY": "sk-123"}


def look(tmp_path, text, *, mode=0o644, **environ):
    """Return what is found of a configuration, without what is right."""
    file = tmp_path / "edwin.yaml"
    file.write_text(text)
    file.chmod(mode)
    environ = {"HOME": str(tmp_path), **environ}
    found = list(check_settings(load(file, environ=environ), environ))
    assert (found[0].level, found[0].check) == ("ok", "configuration")
    assert "chat completions are off" in found[0].what
    return found[1:]


def test_doctor_likes_a_good_configuration(tmp_path):
    """Where all is right there is nothing to say."""
    assert look(tmp_path, FILE, **SET, EDWIN_MY_TOKEN="x" * 20) == []


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("EDWIN_GATEWAY_TOKN", "write EDWIN_GATEWAY_TOKEN"),
        ("EDWIN_STATEDIR", "write EDWIN_STATE_DIR"),
        ("EDWIN_QQQ", "remove it"),
    ],
)
def test_doctor_finds_unknown_variables(tmp_path, name, fix):
    """A variable that nothing looks at was meant to be another."""
    (finding,) = look(tmp_path, PLAIN, **{name: "s3cret"})
    assert (finding.level, finding.check) == ("warning", "environment")
    assert (finding.what, finding.fix) == (
        f"{name} is set, and nothing looks at it",
        fix,
    )


def test_doctor_finds_secrets_of_another_mode(tmp_path):
    """A secret that lets nobody in is told."""
    (finding,) = look(tmp_path, PLAIN, EDWIN_GATEWAY_PASSWORD="s3cret-s3cret-s3cret")
    assert finding.check == "environment"
    assert "s3cret" not in "".join(finding)
    assert finding.fix.endswith("set gateway.auth.mode: password")


def test_doctor_finds_what_unset_variables_leave_out(tmp_path):
    """A key that went away with its variable is named, with the variable."""
    (finding,) = look(tmp_path, FILE)
    assert finding.level == "warning"
    assert "providers.openai.apiKey" in finding.what
    assert "OPENAI_API_KEY" in finding.what


@pytest.mark.parametrize(
    ("text", "mode", "found"),
    [
        (LITERAL, 0o644, True),
        (LITERAL, 0o640, True),
        (LITERAL, 0o600, False),
        (KEY, 0o604, True),
        (FILE, 0o644, False),
    ],
)
def test_doctor_finds_secrets_that_others_can_read(tmp_path, text, mode, found):
    """A configuration with secrets in it is for its owner alone."""
    findings = look(tmp_path, text, mode=mode, **SET)
    assert [(f.level, f.check) for f in findings] == [
        ("problem", "permissions")
    ] * found
    assert "a-token-for-tests" not in str(findings)
    assert "sk-123" not in str(findings)


def test_doctor_does_without_a_file(tmp_path):
    """The defaults are a configuration too."""
    environ = {"HOME": str(tmp_path)}
    config = load(environ=environ, cwd=tmp_path)
    (finding,) = check_settings(config, environ)
    assert finding.what.startswith("no file, the defaults alone")


def test_doctor_knows_the_documented_variables():
    """What Edwin looks at is what the documents name."""
    pages = (DOCS["configuration"], DOCS["api"])
    text = "".join(page.read_text("utf-8") for page in pages)
    assert set(re.findall(r"EDWIN_[A-Z_]+", text)) == set(VARIABLES)
