"""How long an endpoint takes of late: one estimate in its record, of all workers together and for as long as the record
lives.

It has no lock, for a sample comes with every exchange. Of two workers that write in the same moment one is the last,
and the other's sample is lost: the next makes up for it. The record's other cells stay whole whatever happens here.
Both cells are floats: in whole microseconds an estimate that thousands of samples a second draw down by a fraction each
would stand still.
"""

from __future__ import annotations

from gateway.scoreboard import Cells, Mark


class Latency:
    __slots__ = ("cells",)

    def __init__(self, record: Cells) -> None:
        self.cells = record[Mark.LATENCY : Mark.LATENCY_AT + 1].cast("B").cast("d")

    def read(self) -> tuple[float, float]:
        """The estimate in seconds, and when its last sample came, by the monotonic clock; 0, 0 when there is none."""
        return self.cells[0], self.cells[1]

    def write(self, seconds: float, at: float) -> None:
        cells = self.cells
        cells[0] = seconds
        cells[1] = at

    def __repr__(self) -> str:
        seconds, at = self.read()
        return f"<Latency {seconds * 1000:g} ms>" if at else "<Latency unknown>"
