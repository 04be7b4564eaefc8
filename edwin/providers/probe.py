"""Is somebody there, and does he take the key: a question that costs nothing.

Called by the doctor, never by a run.
"""

from __future__ import annotations

import asyncio
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp
import orjson

from edwin import __version__
from edwin.errors import ProviderUnavailable
from edwin.providers import anthropic_messages

if TYPE_CHECKING:
    from edwin.config import ProviderConfig

MAX_LIST_BYTES = 4 * 1024 * 1024


class Seen(NamedTuple):
    """What a provider answers when it is asked for its models.

    Attributes:
        status: The HTTP status.
        models: Ids of its models; None: it gave no list.
        ahead_s: Seconds that its clock is ahead of ours, to a second or two; None: it
            does not say.

    """

    status: int
    models: frozenset[str] | None
    ahead_s: float | None


async def probe(config: ProviderConfig, timeout_s: float) -> Seen:
    """Ask the provider of *config* over HTTP for its models; follows no redirect.

    Raises:
        ProviderUnavailable: If it gave no answer in time; the message says why, and
            nothing of the key.

    """
    headers = {"User-Agent": f"edwin-gateway/{__version__}"}
    url = config.base_url
    if config.api == "anthropic-messages":
        url = anthropic_messages.api_url(config)
        headers |= anthropic_messages.api_headers(config)
    elif config.api_key:
        headers["Authorization"] = f"Bearer {config.api_key}"
    try:
        async with (
            asyncio.timeout(timeout_s),
            aiohttp.ClientSession(headers={**headers, **config.headers}) as session,
            session.get(
                f"{url}/models",
                allow_redirects=False,
                proxy=config.options.get("proxy"),
            ) as response,
        ):
            ahead_s = _ahead(response.headers.get("Date"))
            models = await _models(response) if response.status == 200 else None
            return Seen(response.status, models, ahead_s)
    except TimeoutError as error:
        raise ProviderUnavailable(f"no answer within {timeout_s:g} s") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise ProviderUnavailable(_reason(error)) from error


def _reason(error: Exception) -> str:
    """Return why nobody was reached; never an address, which may hold a password."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its host has no address"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "its certificate is not to be trusted"
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return "it does not speak TLS"
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return "the proxy cannot be reached"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection ({error.os_error.strerror or 'refused'})"
    return f"no answer that is HTTP ({type(error).__name__})"


def _ahead(date: str | None) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp() - time.time() if date else None
    except ValueError:
        return None


async def _models(response: aiohttp.ClientResponse) -> frozenset[str] | None:
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > MAX_LIST_BYTES:
            return None
    try:
        document: Any = orjson.loads(bytes(body))
        return frozenset(str(model["id"]) for model in document["data"])
    except (ValueError, TypeError, KeyError):
        return None
