"""What gateways are put into service with: the unit, the image, the proxies' files."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from edwin.cli import main
from edwin.gateway import LAST_BYTES_SECONDS
from edwin.notify import STOP_MARGIN_S
from tests.process import ROOT

CONF = ROOT / "conf"
UNIT = CONF / "edwin.service"
GATEWAY = yaml.safe_load((CONF / "defaults.yaml").read_text("utf-8"))["gateway"]
ADDRESS = f"127.0.0.1:{GATEWAY['port']}"


def unit() -> dict[str, dict[str, list[str]]]:
    """Return the unit's sections, each key with all its values."""
    sections: dict[str, dict[str, list[str]]] = {}
    for line in UNIT.read_text("utf-8").splitlines():
        line = line.strip()
        if found := re.fullmatch(r"\[(\w+)\]", line):
            here = sections.setdefault(found[1], {})
        elif line and line[0] not in "#;":
            key, equals, value = line.partition("=")
            assert equals and re.fullmatch(r"[A-Z][A-Za-z]+", key), line
            here.setdefault(key, []).append(value)
    return sections


def one(key: str) -> str:
    """Return the one value of *key* in the unit's section for the service."""
    (value,) = unit()["Service"][key]
    return value


def test_deploy_unit_is_complete():
    """The unit has its three sections, and says nothing twice."""
    sections = unit()
    assert list(sections) == ["Unit", "Service", "Install"]
    for section in sections.values():
        assert all(len(values) == 1 for values in section.values())
    assert sections["Install"] == {"WantedBy": ["multi-user.target"]}


def test_deploy_unit_command_is_one(capsys):
    """What the unit starts is a command of ours, with options that it has."""
    program, *words = shlex.split(one("ExecStart"))
    assert Path(program).is_absolute() and Path(program).name == "edwin"
    main([*words, "--help"], standalone_mode=False)
    assert "--config" in capsys.readouterr().out


def test_deploy_unit_waits_for_the_stop():
    """systemd waits for longer than a stop takes, and is told how it is."""
    assert (one("Type"), one("NotifyAccess")) == ("notify", "main")
    stop_s = GATEWAY["shutdownSeconds"] + LAST_BYTES_SECONDS
    assert int(one("TimeoutStopSec")) >= stop_s + STOP_MARGIN_S
    assert one("ExecReload") == "/bin/kill -HUP $MAINPID"


def test_deploy_unit_starts_again_what_failed():
    """A failure starts it again, a configuration that cannot be used does not."""
    assert one("Restart") == "on-failure"
    assert one("RestartPreventExitStatus") == "2"


def test_deploy_unit_keeps_to_its_state_folder():
    """It is nobody special, and writes one folder, which nobody else reads."""
    assert one("User") not in ("", "root", "0")
    assert one("StateDirectoryMode") == "0700"
    state = f"/var/lib/{one('StateDirectory')}"
    assert f"EDWIN_STATE_DIR={state}" in shlex.split(one("Environment"))
    assert one("WorkingDirectory") == state
    assert one("ProtectSystem") == "strict"
    assert "ReadWritePaths" not in unit()["Service"]
    assert one("CapabilityBoundingSet") == one("AmbientCapabilities") == ""
    # The names of hosts, the service manager: both are asked over these.
    assert one("RestrictAddressFamilies").split() == ["AF_INET", "AF_INET6", "AF_UNIX"]


def test_deploy_unit_passes_systemds_own_check(tmp_path):
    """systemd finds nothing to say about it, where there is a systemd."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd here; the rules above are held all the same")
    # The one thing that is not here is the program.
    text = UNIT.read_text("utf-8")
    started = shlex.split(one("ExecStart"))[0]
    path = tmp_path / "edwin.service"
    path.write_text(text.replace(started, "/bin/true"), "utf-8")
    checked = subprocess.run(
        [program, "verify", path], capture_output=True, text=True, timeout=60
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def instructions() -> Iterator[tuple[str, str]]:
    """Yield the image's instructions, each with all it says."""
    text = (ROOT / "Dockerfile").read_text("utf-8")
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.M)
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip():
            word, _, rest = line.partition(" ")
            yield word, " ".join(rest.split())


KNOWN = {
    *("FROM", "RUN", "COPY", "ENV", "WORKDIR", "USER", "VOLUME", "EXPOSE"),
    *("STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"),
}


def last_stage() -> dict[str, list[str]]:
    """Return the instructions of the image itself."""
    stage: dict[str, list[str]] = {}
    for word, rest in instructions():
        if word == "FROM":
            stage = {}
        stage.setdefault(word, []).append(rest)
    return stage


def test_deploy_image_runs_as_nobody_special():
    """The image's user is a number that is not root's, so that a cluster can see it."""
    stage = last_stage()
    (user,) = stage["USER"]
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user)
    # Only the state folder is that user's.
    (folder,) = stage["VOLUME"]
    assert f"EDWIN_STATE_DIR={folder}" in stage["ENV"][0].split()
    assert f"--owner edwin --group edwin --mode 0700 {folder}" in stage["RUN"][0]


def test_deploy_image_installs_what_is_pinned():
    """Each package is held to its hash, and nothing is installed that has none."""
    words = dict(instructions())
    assert words.keys() <= KNOWN
    installs = [
        rest for word, rest in instructions() if word == "RUN" and "pip " in rest
    ]
    *pinned, own = installs
    assert [rest.split()[-1] for rest in pinned] == [
        "requirements/run.txt",
        "requirements/local.txt",
    ]
    for rest in pinned:
        assert "--require-hashes --only-binary :all:" in rest
    assert own.endswith("install --no-deps --no-index --no-build-isolation .")
    for word, rest in instructions():
        assert word != "FROM" or re.match(r"python:3\.\d+-slim-\w+", rest)


def test_deploy_image_is_made_of_what_is_there():
    """Every file that is copied is in the checkout, and passes .dockerignore."""
    ignore = (ROOT / ".dockerignore").read_text("utf-8").split()
    let_in = {line[1:] for line in ignore if line.startswith("!")}
    copied = {
        name
        for word, rest in instructions()
        if word == "COPY" and not rest.startswith("--from")
        for name in rest.split()[:-1]
    }
    assert copied == let_in
    assert all((ROOT / name).exists() for name in copied)


def test_deploy_image_command_is_one(capsys):
    """What the image starts is a command of ours, on the port that it names."""
    stage = last_stage()
    assert yaml.safe_load(stage["ENTRYPOINT"][0]) == ["/opt/edwin/bin/edwin"]
    command = yaml.safe_load(stage["CMD"][0])
    main([*command, "--help"], standalone_mode=False)
    assert "--bind" in capsys.readouterr().out
    assert stage["EXPOSE"] == [str(GATEWAY["port"])]
    assert f"127.0.0.1:{GATEWAY['port']}/healthz" in stage["HEALTHCHECK"][0]


def test_deploy_caddyfile_says_what_streams_need():
    """Caddy leads to the gateway's own port, takes no names, and stops what is left."""
    text = (CONF / "Caddyfile").read_text("utf-8")
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    depth = 0
    for line in lines:
        depth += line.endswith("{") - (line == "}")
        assert depth >= 0 and line.count("{") + line.count("}") <= 1, line
    assert depth == 0
    assert f"reverse_proxy {ADDRESS} {{" in lines
    assert "header_up -X-Forwarded-User" in lines
    # With -1 Caddy would not pass on that a client has left.
    assert not [line for line in lines if line.startswith("flush_interval")]


def test_deploy_proxies_are_patient():
    """No proxy gives up on a run, or refuses a body, before the gateway does."""
    nginx = (CONF / "nginx.conf").read_text("utf-8")
    caddy = (CONF / "Caddyfile").read_text("utf-8")
    run_s = GATEWAY["runs"]["timeoutSeconds"]
    for found in (
        re.search(r"proxy_read_timeout (\d+)s;", nginx),
        re.search(r"response_header_timeout (\d+)s", caddy),
    ):
        assert found and int(found[1]) > run_s
    most = re.search(r"client_max_body_size (\d+)m;", nginx)
    assert most and int(most[1]) << 20 >= GATEWAY["http"]["maxBodyBytes"]
    most = re.search(r"max_size (\d+)MiB", caddy)
    assert most and int(most[1]) << 20 >= GATEWAY["http"]["maxBodyBytes"]
