"""What the gateway counts, and how Prometheus reads it.

Counting is an addition to a plain number: rooms are handed a :class:`Metrics` and call
it, families and text are made when somebody scrapes.  A room that is handed none counts
for itself.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SHORT_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
_LONG_S = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
    *(10, 30, 60, 120, 300, 600),
)


class Counter:
    """Adds up, apart for each set of labels; whoever adds keeps those sets few."""

    def __init__(self, name: str, help: str, *labels: str) -> None:
        self.name = name
        self.help = help
        self.labels = labels
        self.values: dict[tuple[str | int, ...], int] = {} if labels else {(): 0}

    def add(self, *labels: str | int, amount: int = 1) -> None:
        """Add *amount* under *labels*, in the order of the counter's own."""
        self.values[labels] = self.values.get(labels, 0) + amount

    def family(self) -> Metric:
        """Return it as Prometheus knows it."""
        from prometheus_client.metrics_core import CounterMetricFamily

        family = CounterMetricFamily(self.name, self.help, labels=self.labels)
        for labels, value in self.values.copy().items():
            family.add_metric([str(label) for label in labels], value)
        return family


class Histogram:
    """Sorts seconds into buckets."""

    def __init__(self, name: str, help: str, bounds: tuple[float, ...]) -> None:
        self.name = name
        self.help = help
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        """Take one in."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds

    def family(self) -> Metric:
        """Return it as Prometheus knows it."""
        from prometheus_client.metrics_core import HistogramMetricFamily

        bounds = [*(str(float(bound)) for bound in self.bounds), "+Inf"]
        buckets = list(zip(bounds, accumulate(self.counts), strict=True))
        return HistogramMetricFamily(
            self.name, self.help, buckets=buckets, sum_value=self.sum
        )


class Metrics:
    """Everything one gateway counts; used on the loop's thread.

    The exceptions are *store_commit*, which is the store's writer's, and
    *loop_blocked*, which is the monitor's.

    Attributes:
        deltas: Pieces of answers that providers sent: one addition each.

    """

    def __init__(self) -> None:
        self.deltas = 0
        self.requests = Counter(
            *("edwin_requests_total", "Requests answered or given up."),
            *("route", "method", "status"),
        )
        self.runs = Counter(
            *("edwin_runs_total", "Runs that came to their end."),
            *("agent", "state"),
        )
        self.queue_wait = Histogram(
            "edwin_queue_wait_seconds", "From a run's creation to its start.", _LONG_S
        )
        self.first_delta = Histogram(
            *("edwin_first_delta_seconds", "From its creation to its first piece."),
            _LONG_S,
        )
        self.run_duration = Histogram(
            "edwin_run_duration_seconds", "From a run's creation to its end.", _LONG_S
        )
        self.tokens = Counter(
            *("edwin_tokens_total", "Tokens read and written by models."),
            *("agent", "kind"),
        )
        self.provider_errors = Counter(
            *("edwin_provider_errors_total", "Calls to providers that failed."),
            *("provider", "code"),
        )
        self.provider_retries = Counter(
            *("edwin_provider_retries_total", "Calls to providers that were repeated."),
            "provider",
        )
        self.tool_calls = Counter(
            *("edwin_tool_calls_total", "Calls of agents' own tools."),
            *("tool", "outcome"),
        )
        self.tool_duration = Histogram(
            "edwin_tool_duration_seconds", "Calls of agents' own tools.", _LONG_S
        )
        self.store_commit = Histogram(
            "edwin_store_commit_seconds", "Transactions of the store.", _SHORT_S
        )
        self.loop_lag = Histogram(
            "edwin_loop_lag_seconds", "How late the loop's regular beat was.", _SHORT_S
        )
        self.loop_blocked = Counter(
            "edwin_loop_blocked_total",
            "Times the loop stood still for longer than gateway.monitor.blockedMs.",
        )
        self._gauges: dict[str, tuple[str, Callable[[], float]]] = {}

    def run_ended(
        self,
        agent: str,
        state: str,
        *,
        waited_s: float,
        first_delta_s: float | None,
        total_s: float,
        prompt_tokens: int,
        completion_tokens: int,
    ) -> None:
        """Count a run that came to its end, whichever."""
        self.runs.add(agent, state)
        self.queue_wait.observe(waited_s)
        if first_delta_s is not None:
            self.first_delta.observe(first_delta_s)
        self.run_duration.observe(total_s)
        self.tokens.add(agent, "prompt", amount=prompt_tokens)
        self.tokens.add(agent, "completion", amount=completion_tokens)

    def tool_ended(self, tool: str, outcome: str, seconds: float) -> None:
        """Count a call of an agent's own tool.

        Args:
            tool: Its name; ``unknown`` for one that is not there.
            outcome: ``ok``, ``error``, ``timeout`` or ``refused``.
            seconds: How long it took.

        """
        self.tool_calls.add(tool, outcome)
        self.tool_duration.observe(seconds)

    def gauge(self, name: str, help: str, read: Callable[[], float]) -> None:
        """Show what *read* returns whenever somebody scrapes."""
        self._gauges[name] = (help, read)

    @cached_property
    def registry(self) -> CollectorRegistry:
        """The registry of this gateway alone, with what the process uses."""
        from prometheus_client import CollectorRegistry, ProcessCollector

        registry = CollectorRegistry()
        registry.register(self)
        ProcessCollector(registry=registry)
        return registry

    def scrape(self) -> bytes:
        """Return everything as Prometheus reads it (:data:`CONTENT_TYPE`)."""
        from prometheus_client import generate_latest

        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        """Yield the families; called by the registry."""
        from prometheus_client.metrics_core import (
            CounterMetricFamily,
            GaugeMetricFamily,
        )

        for instrument in vars(self).values():
            if isinstance(instrument, Counter | Histogram):
                yield instrument.family()
        yield CounterMetricFamily(
            "edwin_deltas_total", "Pieces of answers from providers.", self.deltas
        )
        for name, (help, read) in self._gauges.items():
            yield GaugeMetricFamily(name, help, read())
