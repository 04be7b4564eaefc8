"""``edwin backup`` and ``edwin restore``: nothing is lost, nothing is overwritten."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import sqlite3
import stat
import tarfile

import orjson
import pytest
import yaml

from edwin import __version__
from edwin.cli.bundle import CONTENTS
from edwin.state import StateFolder
from edwin.store.tables import HEAD
from edwin.testing.gateway import LocalGateway
from tests.conftest import Client


def members(file) -> dict[str, bytes]:
    """Return what is in a backup, by name, in its order."""
    with tarfile.open(file) as tar:
        return {entry.name: tar.extractfile(entry).read() for entry in tar}


def rewritten(file, contents) -> None:
    """Make *file* a tar of *contents*."""
    with tarfile.open(file, "w") as tar:
        for name, content in contents.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def modes(folder) -> dict[str, int]:
    """Return the mode of each file in *folder*."""
    return {p.name: stat.S_IMODE(p.stat().st_mode) for p in folder.iterdir()}


@pytest.mark.gen_test
async def test_cli_backup_and_restore(kept, command, settle, tmp_path, state):
    """A restored gateway has the sessions, keys and token of the one backed up."""
    first = await Client(kept).chat("first", user="ann")
    StateFolder(state).token()
    await settle()
    file = tmp_path / "edwin.tar"
    old = os.umask(0)
    try:
        result = await command("backup", str(file))
        assert result.exit_code == 0, result.stderr
    finally:
        os.umask(old)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(members(file)) == ["manifest.json", *CONTENTS]
    manifest = orjson.loads(members(file)["manifest.json"])
    assert (manifest["version"], manifest["revision"]) == (__version__, HEAD)
    assert {p.name for p in tmp_path.iterdir()} <= {"edwin.yaml", "edwin.tar", "state"}

    target = tmp_path / "new" / "state"
    result = await command("restore", str(file), "--state-dir", str(target))
    assert result.exit_code == 0, result.stderr
    assert modes(target) == dict.fromkeys(["lock", *CONTENTS], 0o600)
    assert stat.S_IMODE(target.stat().st_mode) == 0o700
    for name in ("token", "session-secret"):
        assert (target / name).read_bytes() == (state / name).read_bytes()
    async with LocalGateway(target) as served:
        again = await Client(served).chat("second", user="ann")
        sent = served.upstream.requests[0].body["messages"]
    assert [message["content"] for message in sent][::2] == ["first", "second"]
    key = "x-edwin-session-key"
    assert again.headers[key] == first.headers[key]


@pytest.mark.gen_test
async def test_cli_backup_while_runs_end(kept, command, tmp_path):
    """A backup under load holds the sessions whole, as they were at one moment."""
    client = Client(kept)
    stop = asyncio.Event()

    async def talk(user: str) -> None:
        while not stop.is_set():
            assert (await client.chat("Hi", user=user)).status == 200

    talks = asyncio.gather(*(talk(f"user {number}") for number in range(5)))
    await kept.upstream.arrival(20)
    result = await command("backup", str(tmp_path / "edwin.tar"))
    stop.set()
    await talks
    assert result.exit_code == 0, result.stderr
    target = tmp_path / "new"
    result = await command(
        "restore", str(tmp_path / "edwin.tar"), "--state-dir", str(target)
    )
    assert result.exit_code == 0, result.stderr
    database = sqlite3.connect(target / "edwin.db")
    assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert not database.execute("PRAGMA foreign_key_check").fetchall()
    assert database.execute("SELECT count(*) FROM messages").fetchone()[0] >= 30
    database.close()


@pytest.mark.gen_test
async def test_cli_backup_overwrites_nothing(kept, command, tmp_path):
    """A file that is there stays as it is."""
    file = tmp_path / "edwin.yaml"
    before = file.read_bytes()
    result = await command("backup", str(file))
    assert result.exit_code == 1 and "is there already" in result.stderr
    assert file.read_bytes() == before
    result = await command("backup", str(tmp_path / "none" / "edwin.tar"))
    assert result.exit_code == 1 and "cannot be written" in result.stderr


@pytest.mark.gen_test
async def test_cli_backup_secret(kept, command, tmp_path, state):
    """There is no backup without the session secret, unless it is configured."""
    (state / "session-secret").unlink()
    file = tmp_path / "edwin.tar"
    result = await command("backup", str(file))
    assert result.exit_code == 1 and "session-secret is missing" in result.stderr
    assert not file.exists()
    path = tmp_path / "edwin.yaml"
    config = yaml.safe_load(path.read_text())
    config["gateway"]["sessionSecrets"] = ["s" * 32]
    path.write_text(yaml.safe_dump(config))
    result = await command("backup", str(file))
    assert result.exit_code == 0 and "gateway.sessionSecrets" in result.stderr
    assert list(members(file)) == ["manifest.json", "edwin.db"]


@pytest.mark.gen_test
async def test_cli_restore_refuses_what_is_there(kept, command, tmp_path, state):
    """Only an empty or missing folder is restored into; no other is touched."""
    file = tmp_path / "edwin.tar"
    assert (await command("backup", str(file))).exit_code == 0
    held = await command("restore", str(file))
    assert held.exit_code == 1 and "is not empty" in held.stderr
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    (home / "letter").write_text("Dear")
    result = await command("restore", str(file), "--state-dir", str(home))
    assert result.exit_code == 1 and "(letter)" in result.stderr
    assert [p.name for p in home.iterdir()] == ["letter"]
    assert stat.S_IMODE(home.stat().st_mode) == 0o755

    empty = tmp_path / "empty"
    other = StateFolder(empty)
    other.acquire()
    result = await command("restore", str(file), "--state-dir", str(empty))
    assert result.exit_code == 1 and f"pid {os.getpid()}" in result.stderr
    other.release()
    result = await command("restore", str(file), "--state-dir", str(empty))
    assert result.exit_code == 0, result.stderr


def cut(file) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file) -> None:
    contents = members(file)
    contents["edwin.db"] = contents["edwin.db"][:-1] + b"?"
    rewritten(file, contents)


def drop(file) -> None:
    contents = members(file)
    del contents["session-secret"]
    rewritten(file, contents)


def escape(file) -> None:
    contents = members(file)
    manifest = orjson.loads(contents["manifest.json"])
    manifest["digests"]["../escaped"] = manifest["digests"]["session-secret"]
    contents["manifest.json"] = orjson.dumps(manifest)
    contents["../escaped"] = contents["session-secret"]
    rewritten(file, contents)


def later(file) -> None:
    contents = members(file)
    manifest = orjson.loads(contents["manifest.json"]) | {"format": 2}
    rewritten(file, contents | {"manifest.json": orjson.dumps(manifest)})


def other(file) -> None:
    rewritten(file, {"letter": b"Dear"})


def text(file) -> None:
    file.write_text("Dear")


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "damaged"),
        (flip, "edwin.db is not as it was"),
        (drop, "damaged"),
        (escape, "damaged"),
        (later, "a later Edwin"),
        (other, "no backup"),
        (text, "no backup"),
        (os.unlink, "is no file"),
    ],
)
async def test_cli_restore_refuses_damage(kept, command, tmp_path, damage, message):
    """A backup that is not whole leaves nothing behind, and the next one goes in."""
    file, whole = tmp_path / "edwin.tar", tmp_path / "whole.tar"
    assert (await command("backup", str(file))).exit_code == 0
    shutil.copy(file, whole)
    damage(file)
    target = tmp_path / "new"
    result = await command("restore", str(file), "--state-dir", str(target))
    assert (result.exit_code, result.stdout) == (1, "")
    assert message in result.stderr
    assert not target.exists() or [p.name for p in target.iterdir()] == ["lock"]
    assert not (tmp_path / "escaped").exists()
    result = await command("restore", str(whole), "--state-dir", str(target))
    assert result.exit_code == 0, result.stderr
