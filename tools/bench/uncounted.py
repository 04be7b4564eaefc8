"""The command ``edwin gateway``, with metrics that count nothing.

    python -m tools.bench.uncounted --config edwin.yaml --port 0

What the gateway costs over this one is what counting costs.  The attribute ``deltas``,
to which the carrier adds itself, is still counted.
"""

from __future__ import annotations

import sys
from typing import Any

from edwin import cli, gateway
from edwin.metrics import Counter, Histogram, Metrics


class Uncounted(Metrics):
    """Takes everything and keeps nothing."""

    def __init__(self) -> None:
        super().__init__()
        for instrument in vars(self).values():
            if isinstance(instrument, Counter):
                instrument.add = _nothing  # type: ignore[method-assign]
            elif isinstance(instrument, Histogram):
                instrument.observe = _nothing  # type: ignore[method-assign]

    def run_ended(self, *given: Any, **named: Any) -> None:
        """Count nothing."""


class UncountedGateway(gateway.Gateway):
    """A gateway that counts nothing; takes what the gateway takes."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.metrics = Uncounted()


def _nothing(*given: Any, **named: Any) -> None:
    pass


def main() -> None:
    """Run the command."""
    # The command makes the gateway that stands in the module when it is run.
    gateway.Gateway = UncountedGateway  # type: ignore[misc]
    cli.main(["gateway", *sys.argv[1:]])


if __name__ == "__main__":
    main()
