"""Who may call a provider now: a limit on calls at once, and a circuit breaker.

The pool makes one for each provider of a configuration, the executor passes it before
every call.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from edwin.errors import (
    ContextLengthExceeded,
    ProviderError,
    ProviderStreamError,
    ProviderTimeout,
    ProviderUnavailable,
)

_log = logging.getLogger("edwin.providers")

_FAILURES = (ProviderUnavailable, ProviderTimeout, ProviderStreamError)
# The provider was there, and had an answer: this is no failure of it.
_ANSWERS = (type(None), ProviderError, ContextLengthExceeded)


class Gate:
    """Lets the calls of one provider through, in the order in which they came.

    Every :meth:`enter` that returns is followed by one :meth:`leave`::

        await gate.enter()
        try:
            ...  # one call, to the end of its answer
        except BaseException as error:
            gate.leave(error)
            raise
        gate.leave(None)

    The breaker opens when so many calls in a row have failed: no connection, a 5xx, no
    answer in time, one that broke off.  What the provider itself answers, a refusal or
    a 429, is no failure, and a call that was cancelled is neither.  After a while one
    call is let through, the trial: an answer closes the breaker, a failure leaves it
    open as long again, a cancelled trial leaves its place to the next call.  Calls that
    were under way when it opened have no say in that.

    For one loop; not for several threads.

    Args:
        name: The provider's, for messages.
        max_concurrent: Calls under way at once; 0: any number.
        failures: In a row, after which the breaker opens; 0: it never does.
        seconds: How long no call is let through then.
        clock: The loop's time, in seconds.

    Attributes:
        busy: Calls under way.

    """

    def __init__(
        self,
        name: str,
        *,
        max_concurrent: int = 0,
        failures: int = 0,
        seconds: float = 15.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.busy = 0
        self._name = name
        self._limit = max_concurrent or math.inf
        self._failures = failures or math.inf
        self._seconds = seconds
        self._clock = clock
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._failed = 0
        self._open = False
        self._until = 0.0
        self._trial: asyncio.Task[object] | None = None

    @property
    def open(self) -> bool:
        """Whether the breaker is open: no call but a trial is let through."""
        return self._open

    @property
    def waiting(self) -> int:
        """How many calls wait for a place."""
        return len(self._waiting)

    async def enter(self) -> None:
        """Wait for a place and take it; does not suspend where there is one.

        Cancelled while it waits, it leaves nothing behind.

        Raises:
            ProviderUnavailable: If the breaker is open, or opens meanwhile.

        """
        if self._open:
            # A trial finds a place: who waited is refused when the breaker opens.
            self._begin_trial()
        if self.busy < self._limit:
            self.busy += 1
        else:
            await self._wait()

    def leave(self, error: BaseException | None) -> None:
        """Give the place up, in the task that took it.

        Args:
            error: What the call ended with; None: an answer that is whole.

        """
        if error is not None or self._failed:
            self._judge(error)
        self._hand_on()

    def _begin_trial(self) -> None:
        if self._trial is not None or self._clock() < self._until:
            raise self._refusal()
        self._trial = asyncio.current_task()

    async def _wait(self) -> None:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except BaseException:
            if not place.done() or place.cancelled():
                # Where it was cancelled, its turn may have come and passed already.
                with suppress(ValueError):
                    self._waiting.remove(place)
            elif place.exception() is None:
                self._hand_on()
            raise
        if self._open:
            # It opened between the place's being given and its being taken.
            self._hand_on()
            raise self._refusal()

    def _hand_on(self) -> None:
        """Give a place to who has waited longest, or to nobody."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self.busy -= 1

    def _judge(self, error: BaseException | None) -> None:
        """Draw from the end of a call what it says about the provider."""
        trial = self._end_trial()
        if isinstance(error, _FAILURES):
            if self._open and not trial:
                return
            self._failed += 1
            if self._failed >= self._failures:
                self._shut()
        elif isinstance(error, _ANSWERS) and (trial or not self._open):
            if self._open:
                _log.info("provider %r answers again", self._name)
            self._failed = 0
            self._open = False

    def _shut(self) -> None:
        level = logging.INFO if self._open else logging.WARNING
        _log.log(
            level,
            "provider %r has failed %d times in a row; it is not called for %g s",
            *(self._name, self._failed, self._seconds),
            extra={"fields": {"provider": self._name}},
        )
        self._open = True
        self._until = self._clock() + self._seconds
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_exception(self._refusal())

    def _refusal(self) -> ProviderUnavailable:
        rest_s = self._until - self._clock()
        if rest_s > 0:
            what = f"is not called for another {math.ceil(rest_s)} s"
        else:
            # How long the trial takes nobody knows; if it fails, as long as this.
            rest_s, what = self._seconds, "is being tried by one call"
        return ProviderUnavailable(
            f"provider {self._name!r} has failed {self._failed} times in a row "
            f"and {what}",
            retry_after_s=rest_s,
        )

    def _end_trial(self) -> bool:
        """Return whether the call that ends was the trial; there is none then."""
        if self._trial is None:
            return False
        # The only call there is must be the trial, whichever task ends it.
        if self.busy > 1 and self._trial is not asyncio.current_task():
            return False
        self._trial = None
        return True
