"""How a call over HTTP failed: Edwin's error for the client, a line for the log."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edwin.errors import (
    EdwinError,
    ProviderStreamError,
    ProviderTimeout,
    ProviderUnavailable,
)
from edwin.providers import faults

if TYPE_CHECKING:
    from edwin.config import ProviderConfig

_log = logging.getLogger("edwin.providers")


class Reports:
    """Makes the errors of one provider, and logs each, secrets masked.

    Every method returns the error; whoever called raises it.

    Args:
        config: Of the provider.
        secrets: What the log never shows.

    """

    def __init__(self, config: ProviderConfig, secrets: tuple[str, ...]) -> None:
        self._config = config
        self._name = config.name
        self._secrets = secrets

    def fault(
        self,
        status: int,
        error: Any,
        *,
        headers: Mapping[str, str] | None = None,
        started: bool = False,
    ) -> EdwinError:
        """Return the error that the provider's own words mean.

        Args:
            status: HTTP status it came with; 200 where it stood in a stream.
            error: The error as :func:`edwin.providers.faults.parse` gives it.
            headers: Headers of the answer, for ``Retry-After``.
            started: Whether deltas came before it.

        """
        fault = faults.fault(
            self._name, status, error, headers=headers, started=started
        )
        return self._logged(fault, error, status=status)

    def unreachable(self, error: BaseException) -> EdwinError:
        """Return the error of a call that met no server, or lost it."""
        fault = ProviderUnavailable(f"provider {self._name!r} cannot be reached")
        return self._logged(fault, f"{type(error).__name__}: {error}")

    def stopped(self) -> EdwinError:
        """Return the error of a call whose provider was stopped before it answered."""
        fault = ProviderUnavailable(f"provider {self._name!r} was stopped")
        return self._logged(fault, "stopped")

    def timeout(self, which: str) -> EdwinError:
        """Return the error of patience that ended.

        Args:
            which: ``connect``, ``first delta`` or ``silence``.

        """
        config = self._config
        what = {
            "connect": f"took no connection within {config.connect_seconds:g} s",
            "first delta": f"began no answer within {config.first_delta_seconds:g} s",
            "silence": f"fell silent for {config.idle_seconds:g} s in its answer",
        }[which]
        return self._logged(ProviderTimeout(f"provider {self._name!r} {what}"), which)

    def broken(self, why: str) -> EdwinError:
        """Return the error of an answer that ended too soon, or is none."""
        fault = ProviderStreamError(
            f"the answer of provider {self._name!r} broke off, or cannot be read"
        )
        return self._logged(fault, why)

    def _logged(
        self, fault: EdwinError, words: Any, *, status: int | None = None
    ) -> EdwinError:
        detail = faults.said(words, secrets=self._secrets)
        fields = {"provider": self._name, "status": status, "code": fault.code}
        _log.warning(
            "%s: %s", fault.message, detail or "no reason", extra={"fields": fields}
        )
        return fault
