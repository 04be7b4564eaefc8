"""How a session key is made, and what one may look like; called by the registry."""

from __future__ import annotations

import hashlib
import hmac
import re

from edwin.errors import InvalidRequest

HEADER = "x-edwin-session-key"
_KEY = re.compile(r"[\x21-\x7e]{1,512}")
_AGENT_KEY = re.compile(r"agent:([A-Za-z0-9][A-Za-z0-9_-]{0,63}):")


def session_key(user: str, *, agent: str, principal: str, secret: bytes) -> str:
    """Return the stable session key of *user* talking to *agent*.

    The same arguments give the same key on every host and in every process, for
    ever.  The user string cannot be read back from the key.

    Args:
        user: The ``user`` field of the request, compared byte for byte.
        agent: Id of the agent that will answer.
        principal: Id of the principal that sent the request.
        secret: Deployment secret; changing it orphans every session.

    Returns:
        ``agent:<agent>:openai-user:<32 hex digits>`` (128 bits).

    Raises:
        ValueError: If *user* is blank.

    """
    if not user.strip():
        raise ValueError("a blank user has no session key")
    # The user comes last, and no id holds a NUL: ("a", "b") and ("ab", "") differ.
    text = f"edwin/session/v1\0{agent}\0{principal}\0{user}"
    mac = hmac.new(secret, text.encode("utf-8"), hashlib.sha256)
    return f"agent:{agent}:openai-user:{mac.hexdigest()[:32]}"


def stateless_key(agent: str, unique: str) -> str:
    """Return the key of a run without a session; *unique* is a fresh UUID."""
    return f"agent:{agent}:openai:{unique}"


def checked_key(key: str, *, param: str = HEADER) -> str:
    """Return the client's session *key* as it stands.

    Raises:
        InvalidRequest: Unless it is 1 to 512 printable ASCII characters.

    """
    if _KEY.fullmatch(key):
        return key
    raise InvalidRequest(
        f"{param} must be 1 to 512 printable ASCII characters without blanks",
        param=param,
        code="invalid_value",
    )


def agent_of_key(key: str) -> str | None:
    """Return the id of the agent that *key* names (``agent:<id>:…``), or None."""
    match = _AGENT_KEY.match(key)
    return match[1].lower() if match else None
