"""Quotas: how much a principal has used of what it may; no clock, no loop.

Owned by the gateway, asked by ``dispatch`` before a run is begun.  Every call costs the
same, however many principals there are.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field

from edwin.errors import RateLimited
from edwin.types import Allowance, Principal

MAX_PRINCIPALS = 100_000
DAY_S = 86_400.0
MINUTE_S = 60.0


@dataclass(slots=True)
class Account:
    """What one principal has used.

    Attributes:
        requests: How many it may send at once, as of *filled_at*.
        running: Its runs that wait or are under way.
        day: Whole days since 1970 (UTC) that *used* is of.
        used: Tokens of runs that have ended.
        reserved: Tokens that runs under way are counted with.

    """

    requests: float = math.inf
    filled_at: float = 0.0
    running: int = 0
    day: int = 0
    used: int = 0
    reserved: int = 0


class Ticket:
    """One run's part of an account; given back exactly once."""

    def __init__(self, account: Account, tokens: int) -> None:
        self._account = account
        self._tokens = tokens
        self._open = True

    def settle(self, tokens: int) -> None:
        """Count the *tokens* that were used, in place of those that were reserved."""
        if self._open:
            self._open = False
            self._account.running -= 1
            self._account.reserved -= self._tokens
            self._account.used += tokens


@dataclass(frozen=True, slots=True)
class Standing:
    """How a principal stands, for the headers of an answer.

    Attributes:
        limit: What it may use; *remaining*: what is left of it.
        reset_s: Seconds until all of it is there again.

    """

    limit: int
    remaining: int
    reset_s: float


@dataclass(slots=True)
class Quotas:
    """The accounts of all principals, the least recently used forgotten first."""

    _accounts: OrderedDict[str, Account] = field(default_factory=OrderedDict)

    def knows(self, principal: Principal, now: float) -> bool:
        """Return whether the tokens that *principal* has used today are known."""
        account = self._accounts.get(principal.id)
        return account is not None and account.day == _day(now)

    def begin_day(self, principal: Principal, now: float, used: int) -> None:
        """Note what *principal* has used of today's tokens so far."""
        account = self._account(principal)
        if account.day != _day(now):
            account.day, account.used = _day(now), used

    def take(self, principal: Principal, now: float, tokens: int) -> Ticket:
        """Return the place for one more run of *principal*.

        Args:
            principal: Whose run it is.
            now: Unix seconds.
            tokens: How many the run will use at the least.

        Raises:
            RateLimited: If there is none; nothing is counted then.

        """
        account = self._account(principal)
        limits = principal.limits
        _fill(account, limits, now)
        _check_tokens(account, limits, now)
        if account.requests < 1:
            assert limits.requests_per_minute
            rate = limits.requests_per_minute / MINUTE_S
            raise RateLimited(
                f"Rate limit reached: {limits.requests_per_minute} requests a minute.",
                retry_after_s=(1 - account.requests) / rate,
            )
        most = limits.concurrent_runs
        if most is not None and account.running >= most:
            raise RateLimited(
                f"Rate limit reached: {most} runs at a time.",
                retry_after_s=1,
            )
        account.requests -= 1
        account.running += 1
        account.reserved += tokens
        return Ticket(account, tokens)

    def requests(self, principal: Principal, now: float) -> Standing | None:
        """Return how *principal* stands with its requests; None: not limited."""
        limit = principal.limits.requests_per_minute
        if limit is None:
            return None
        account = self._account(principal)
        _fill(account, principal.limits, now)
        missing = limit - account.requests
        return Standing(limit, int(account.requests), missing * MINUTE_S / limit)

    def tokens(self, principal: Principal, now: float) -> Standing | None:
        """Return how *principal* stands with its tokens; None: not limited."""
        limit = principal.limits.tokens_per_day
        if limit is None:
            return None
        account = self._account(principal)
        left = max(0, limit - account.used - account.reserved)
        return Standing(limit, left, DAY_S - now % DAY_S)

    def _account(self, principal: Principal) -> Account:
        account = self._accounts.get(principal.id)
        if account is None:
            account = self._accounts[principal.id] = Account()
            if len(self._accounts) > MAX_PRINCIPALS:
                self._forget_one()
        else:
            self._accounts.move_to_end(principal.id)
        return account

    def _forget_one(self) -> None:
        id_, account = next(iter(self._accounts.items()))
        if account.running:
            # Its runs hold on to it.
            self._accounts.move_to_end(id_)
        else:
            del self._accounts[id_]


def _fill(account: Account, limits: Allowance, now: float) -> None:
    limit = limits.requests_per_minute
    if limit is None:
        account.requests = math.inf
        return
    gained = max(0.0, now - account.filled_at) * limit / MINUTE_S
    account.requests = min(float(limit), account.requests + gained)
    account.filled_at = now


def _check_tokens(account: Account, limits: Allowance, now: float) -> None:
    limit = limits.tokens_per_day
    if limit is not None and account.used + account.reserved >= limit:
        raise RateLimited(
            f"Rate limit reached: {limit} tokens a day.",
            kind="tokens",
            retry_after_s=DAY_S - now % DAY_S,
            should_retry=False,
        )


def _day(now: float) -> int:
    return int(now // DAY_S)
