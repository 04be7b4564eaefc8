"""The table of what is measured."""

from __future__ import annotations

from tools.bench.answers import Answer
from tools.bench.figures import Measure
from tools.bench.footprint import Footprint
from tools.bench.traffic import CPU_DELTA, CPU_REQUEST, FIRST, P50, P99, Traffic

SHORT = Answer(deltas=10)

WARM_UP = Traffic(name="warm-up", figures=(), connections=8, answer=SHORT, slices=2)

MEASURES: tuple[Measure, ...] = (
    *(
        Traffic(
            name=f"{name}-{connections}",
            figures=(CPU_REQUEST, P50, P99),
            connections=connections,
            answer=SHORT,
            turns=turns,
        )
        for name, turns in (("whole", 0), ("session", 10))
        for connections in (1, 8, 32)
    ),
    Traffic(
        name="burst-8",
        figures=(CPU_DELTA,),
        connections=8,
        answer=Answer(deltas=50, gap_s=0.0),
        stream=True,
    ),
    Traffic(
        name="paced-50",
        figures=(CPU_DELTA, FIRST),
        connections=50,
        answer=Answer(deltas=25, gap_s=0.02),
        stream=True,
        spread_s=0.5,
        # Shorter ones would end before all streams are under way.
        slices=2,
        slice=1.0,
    ),
    Traffic(
        name="first-1",
        figures=(FIRST,),
        connections=1,
        answer=Answer(deltas=2, gap_s=0.002),
        stream=True,
    ),
    Footprint(),
)
