"""What a test found: figures, and faults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

SHOWN = 20


@dataclass
class Report:
    """A table of figures, and what is wrong.

    Attributes:
        rows: Name and figures, the same number in each.
        faults: In words; none: all is well.
        head: What stands above the figures, if anything does.

    """

    rows: Sequence[Sequence[str]]
    faults: Sequence[str]
    head: Sequence[str] = field(default=())

    def __str__(self) -> str:
        table = [self.head, *self.rows] if self.head else list(self.rows)
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(width) if place == 0 else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in table
        ]
        lines += [f"FAULT: {fault}" for fault in self.faults[:SHOWN]]
        if len(self.faults) > SHOWN:
            lines.append(f"and {len(self.faults) - SHOWN} faults more")
        return "\n".join(lines)
