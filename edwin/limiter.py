"""FailureLimiter: who guesses secrets is soon no longer listened to.

Owned by the authenticator.  An address that is shut out is still let in with a secret
that was right from there before, so that nobody can lock its neighbours out.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field

from edwin.addresses import is_loopback, neighbourhood
from edwin.errors import TooManyFailures

MAX_FAILURES = 10
WINDOW_S = 60.0
SHUT_OUT_S = 300.0
REMEMBERED_S = 3600.0
MAX_ADDRESSES = 10_000
MAX_SECRETS = 16


@dataclass(slots=True)
class _Visitor:
    failures: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_FAILURES))
    shut_out_until: float = 0.0
    known: dict[bytes, float] = field(default_factory=dict)


class FailureLimiter:
    """Counts wrong secrets by address: IPv4, or the /64 of IPv6.

    Args:
        exempt_loopback: Whether loopback addresses may guess for ever.

    """

    def __init__(self, *, exempt_loopback: bool) -> None:
        self._exempt_loopback = exempt_loopback
        self._visitors: OrderedDict[str, _Visitor] = OrderedDict()
        self._names: dict[str, str | None] = {}

    def check(self, address: str, digest: bytes, now: float) -> None:
        """Return if the secret with this *digest* is to be looked at.

        Args:
            address: Where it comes from.
            digest: Digest of the secret.
            now: Seconds of a clock that never goes back.

        Raises:
            TooManyFailures: If the address is shut out, and the secret was not right
                from there within the hour.

        """
        visitor = self._visitors.get(self._name(address) or "")
        if visitor is None or visitor.shut_out_until <= now:
            return
        if visitor.known.get(digest, now - REMEMBERED_S) + REMEMBERED_S > now:
            return
        raise TooManyFailures(
            "too many wrong API keys came from this address",
            retry_after_s=visitor.shut_out_until - now,
            should_retry=False,
        )

    def failed(self, address: str, now: float) -> bool:
        """Count a wrong secret; return whether the address is shut out for it."""
        name = self._name(address)
        if name is None:
            return False
        visitor = self._visitor(name)
        visitor.failures.append(now)
        if len(visitor.failures) == MAX_FAILURES and (
            now - visitor.failures[0] <= WINDOW_S
        ):
            visitor.shut_out_until = now + SHUT_OUT_S
            visitor.failures.clear()
            return True
        return False

    def succeeded(self, address: str, digest: bytes, now: float) -> None:
        """Remember a right secret."""
        name = self._name(address)
        if name is None:
            return
        known = self._visitor(name).known
        if digest not in known and len(known) >= MAX_SECRETS:
            del known[next(iter(known))]
        known[digest] = now

    def _visitor(self, name: str) -> _Visitor:
        visitor = self._visitors.get(name)
        if visitor is None:
            visitor = self._visitors[name] = _Visitor()
            if len(self._visitors) > MAX_ADDRESSES:
                self._visitors.popitem(last=False)
        else:
            self._visitors.move_to_end(name)
        return visitor

    def _name(self, address: str) -> str | None:
        """Return what *address* is counted by; None: it is not counted."""
        try:
            return self._names[address]
        except KeyError:
            pass
        exempt = self._exempt_loopback and is_loopback(address)
        name = None if exempt else neighbourhood(address)
        if len(self._names) >= MAX_ADDRESSES:
            self._names.clear()
        self._names[address] = name
        return name
