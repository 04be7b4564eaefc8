"""How a configuration's ``api`` finds its provider."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

import edwin.providers
from edwin.errors import ConfigError
from edwin.providers.base import provider_class
from edwin.providers.openai_completions import OpenAICompletions
from edwin.providers.scripted import Scripted

OWN = """
import {needs}

class Own:
    def __init__(self, config): ...
    async def start(self): ...
    async def stop(self): ...
    def stream(self, request): ...

value = 1
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Return a function that puts a module of somebody else's on the path."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def put(name: str, needs: str) -> None:
        Path(tmp_path, f"{name}.py").write_text(OWN.format(needs=needs), "utf-8")

    return put


@pytest.mark.parametrize(
    ("api", "cls"),
    [
        ("openai-completions", OpenAICompletions),
        ("scripted", Scripted),
        ("edwin.providers.scripted:Scripted", Scripted),
    ],
)
def test_providers_are_found_by_their_file(api, cls):
    """The file's name is the configuration's value; a class path works as well."""
    assert provider_class(api) is cls


def test_providers_may_be_somebody_elses(own):
    """A provider of one's own is named by package.module:Class."""
    own("own_provider_good", needs="json")
    assert provider_class("own_provider_good:Own").__name__ == "Own"


@pytest.mark.parametrize(
    "api",
    [
        "openai",
        "Scripted",
        "base",
        "sse",
        "../scripted",
        "scripted.x",
        "",
        ":",
        "no.such.module:Class",
        "edwin.providers.scripted:Missing",
        "edwin.providers.scripted:asyncio",
        "edwin.providers.base:Provider",
        "http",
        "edwin.providers.http:HttpProvider",
        "edwin.errors:ConfigError",
    ],
)
def test_providers_unknown_are_refused(api):
    """An api nobody has is a configuration error that names those there are."""
    with pytest.raises(ConfigError) as caught:
        provider_class(api)
    kinds = "openai-completions, anthropic-messages, local, scripted"
    assert kinds in caught.value.message


def test_providers_name_the_package_they_lack(own):
    """A provider that needs a package says which one to install."""
    own("own_provider_poor", needs="no_such_package_at_all")
    with pytest.raises(ConfigError, match="'no_such_package_at_all'"):
        provider_class("own_provider_poor:Own")


def test_providers_in_the_folder_are_all_named():
    """The message lists every file of the folder that is a provider."""
    with pytest.raises(ConfigError) as caught:
        provider_class("nobody")
    folder = Path(edwin.providers.__file__).parent
    for path in folder.glob("*.py"):
        api = path.stem.replace("_", "-")
        spec = importlib.util.find_spec(f"edwin.providers.{path.stem}")
        assert spec is not None or path.stem == "__init__"
        try:
            provider_class(api)
        except ConfigError:
            continue
        assert api in caught.value.message
