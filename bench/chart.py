"""A comparison as a picture: one panel of bars per scenario, cheapest on top. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from bench.report import Report
from bench.scenarios import SCENARIOS

WIDTH = 760
MARGIN = 24
NAMES = 130  # room for the names at the left
VALUES = 120  # and for the figures at the right
BAR, GAP = 18, 8
PANEL_HEAD, PANEL_FOOT = 34, 22
HEADING = 74

PAPER, INK, FAINT = "#ffffff", "#1f2933", "#66727f"
OURS, THEIRS = "#1769aa", "#b6c2cd"

# A bar this many times as long as the median one is cut: a single slow peer would flatten all the others.
LONGEST = 3.0


@dataclass(frozen=True)
class Panel:
    title: str
    bars: Sequence[tuple[str, float, str]]  # name, length, label

    @property
    def height(self) -> int:
        return PANEL_HEAD + len(self.bars) * (BAR + GAP) + PANEL_FOOT


def panels(report: Report) -> Iterator[Panel]:
    for name, table in report.scenarios.items():
        bars = []
        for row in table:
            ratio = row.ratios.get("nginx")
            bars.append((row.peer, row.cpu_us, f"{row.cpu_us:,.1f}" + (f"  ({ratio:.2f} x)" if ratio else "")))
        yield Panel(f"{SCENARIOS[name].title}: CPU µs per request (x nginx)", bars)
    if report.memory:
        yield Panel(
            "Idle keep-alive connection: KiB of private memory",
            [(m.peer, m.bytes_per_connection, f"{m.bytes_per_connection / 1024:.1f}") for m in report.memory],
        )


def chart(report: Report) -> str:
    """The whole SVG document."""
    all_panels = list(panels(report))
    height = HEADING + sum(panel.height for panel in all_panels) + MARGIN
    facts = report.machine
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="system-ui, sans-serif" font-size="13" fill="{INK}">',
        f'<rect width="{WIDTH}" height="{height}" fill="{PAPER}"/>',
        text(MARGIN, 34, "What a proxied request costs", size=18, weight="600"),
        text(
            MARGIN,
            55,
            f"{report.date}, commit {report.commit}; {facts.get('cpu', '')}, {facts.get('cores', '?')} cores, "
            f"Linux {facts.get('kernel', '')}; one worker each, medians of {report.rounds} rounds",
            fill=FAINT,
            size=11,
        ),
    ]
    top = HEADING
    for panel in all_panels:
        parts += draw(panel, top)
        top += panel.height
    return "\n".join([*parts, "</svg>", ""])


def draw(panel: Panel, top: int) -> Iterator[str]:
    yield text(MARGIN, top + 16, panel.title, weight="600")
    left, room = MARGIN + NAMES, WIDTH - 2 * MARGIN - NAMES - VALUES
    scale = room / axis_end([length for _, length, _ in panel.bars])
    for n, (name, length, label) in enumerate(panel.bars):
        y = top + PANEL_HEAD + n * (BAR + GAP)
        base = y + BAR - 5
        ours = name == "gateway"
        width = min(max(length, 0) * scale, room)
        yield text(left - 8, base, name, anchor="end", weight="600" if ours else "400")
        yield f'<rect x="{left}" y="{y}" width="{width:.1f}" height="{BAR}" rx="2" fill="{OURS if ours else THEIRS}"/>'
        if length * scale > room + 0.5:
            yield f'<path d="M{left + room - 14} {y + BAR + 2} l6 -{BAR + 4} h4 l-6 {BAR + 4} z" fill="{PAPER}"/>'
        yield text(left + width + 6, base, label, weight="600" if ours else "400")


def axis_end(lengths: Sequence[float]) -> float:
    """The value at the end of the axis: the longest bar, unless it is far longer than the usual one."""
    usual = sorted(lengths)[len(lengths) // 2] if lengths else 0
    return max(min(max(lengths, default=0), LONGEST * usual), 1e-9)


def text(
    x: float, y: float, words: str, *, size: int = 13, fill: str = INK, anchor: str = "start", weight: str = "400"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" fill="{fill}" '
        f'text-anchor="{anchor}">{escape(words)}</text>'
    )
