"""The table of what is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from tools.bench.answers import Answer
from tools.bench.figures import Measure
from tools.bench.footprint import STREAM, Footprint
from tools.bench.refusals import Refusal
from tools.bench.traffic import CPU_DELTA, CPU_REQUEST, FIRST, P50, P99, Traffic

SHORT = Answer(deltas=10)

WARM_UP = Traffic(
    name="warm-up", figures=(), connections=8, answer=SHORT, slices=2, foreign=True
)

MEASURES: tuple[Measure, ...] = (
    *(
        Traffic(
            name=f"{name}-{connections}",
            figures=(CPU_REQUEST, P50, P99),
            connections=connections,
            answer=SHORT,
            turns=turns,
            foreign=not turns,
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
        foreign=True,
    ),
    Traffic(
        name="paced-50",
        figures=(CPU_DELTA, FIRST),
        connections=50,
        answer=Answer(deltas=25, gap_s=0.02),
        stream=True,
        foreign=True,
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
        foreign=True,
    ),
    Traffic(
        name="long-8",
        figures=(CPU_REQUEST, P50, P99),
        connections=8,
        answer=SHORT,
        messages=200,
    ),
    *(
        Traffic(
            name=f"refused-{refusal.status}",
            figures=(CPU_REQUEST, P50, P99),
            connections=8,
            answer=SHORT,
            refusal=refusal,
        )
        for refusal in (
            Refusal(status=401, code="invalid_api_key", token="a-wrong-token"),
            Refusal(status=400, code="empty_array", fields={"messages": []}),
            Refusal(status=429, code="session_queue_full", busy=True),
        )
    ),
    Footprint(),
)

GATE: Mapping[str, Sequence[str]] = MappingProxyType(
    {
        "whole-32": (CPU_REQUEST.name,),
        "session-32": (CPU_REQUEST.name,),
        "burst-8": (CPU_DELTA.name,),
        "paced-50": (CPU_DELTA.name,),
        "long-8": (CPU_REQUEST.name,),
        "refused-401": (CPU_REQUEST.name,),
        "refused-400": (CPU_REQUEST.name,),
        "refused-429": (CPU_REQUEST.name,),
        "process": (STREAM.name,),
    }
)
