"""What a gateway answers when it refuses, as the errors that it raised itself."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from edwin import errors
from edwin.errors import EdwinError, InvalidRequest


class ClientError(Exception):
    """The gateway cannot be reached, or gives an answer that is no gateway's.

    Also an error of a kind that this version does not know.

    Args:
        message: What is wrong, in a sentence.
        status: The answer's status; 0: there was no whole answer.
        code: The error's code, or None.
        param: The field at fault, or None.

    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        code: str | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.param = param


def error_of(
    url: str, status: int, headers: Mapping[str, str], body: bytes
) -> EdwinError | ClientError:
    """Return the error that an answer tells of, of the class that has its code.

    Args:
        url: Where the answer comes from, for what no gateway would say.
        status: Its status.
        headers: Its headers, by name in any case.
        body: The whole of it.

    """
    try:
        error = orjson.loads(body)["error"]
        message, code, param = str(error["message"]), error["code"], error["param"]
    except (ValueError, TypeError, KeyError):
        return ClientError(
            f"{url} answers with status {status}, and not as a gateway does",
            status=status,
        )
    kind = _kind(status, code)
    if kind is None:
        return ClientError(message, status=status, code=code, param=param)
    retry_after = headers.get("Retry-After", "")
    retry = {"true": True, "false": False}.get(headers.get("x-should-retry", ""))
    return kind(
        message,
        param=param,
        code=code,
        retry_after_s=float(retry_after) if retry_after.isdecimal() else None,
        should_retry=retry,
    )


def _kind(status: int, code: str | None) -> type[EdwinError] | None:
    """Return the class of errors with this code; many of a bad request share one."""
    for kind in vars(errors).values():
        if not isinstance(kind, type) or not issubclass(kind, EdwinError):
            continue
        if code is not None and (kind.status, kind.code) == (status, code):
            return kind
    return InvalidRequest if status == InvalidRequest.status else None
