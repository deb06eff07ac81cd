"""Horizontal bars of sequences per second, a group a batch size, with whiskers from the least to the most."""

import math
import statistics
from html import escape

from peers_arms import Arm, Results

WIDTH, LEFT, RIGHT = 900, 250, 130
BAR, GAP, GROUP, TOP, BOTTOM = 20, 6, 34, 102, 24
# Colours come by class, so that a dark page can have others.
STYLE = """
.page { fill: #ffffff } .text { fill: #1f2328 } .soft { fill: #59636e } .grid { stroke: #d1d9e0 }
.sida { fill: #2f6fb3 } .peer { fill: #b4653a } .whisker { stroke: #1f2328 }
@media (prefers-color-scheme: dark) {
.page { fill: #0d1117 } .text { fill: #e6edf3 } .soft { fill: #9198a1 } .grid { stroke: #3d444d }
.sida { fill: #5b9be0 } .peer { fill: #d98a5c } .whisker { stroke: #e6edf3 }
}
"""


def step(most: float) -> float:
    """A round distance of grid lines of which about five fit."""
    power = 10 ** math.floor(math.log10(most / 5))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= most / 5)


def text(x: float, y: float, words: str, kind: str = "text", anchor: str = "start", size: float = 13,
         weight: str = "normal") -> str:
    return (f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}" font-size="{size}" '
            f'font-weight="{weight}">{escape(words)}</text>')


def bar(y: float, name: str, kind: str, values: list[float], scale: float) -> list[str]:
    """A bar as long as the median; the whisker spans all rounds."""
    middle, least, most = statistics.median(values), min(values), max(values)
    y_middle, low, high = y + BAR / 2, LEFT + least * scale, LEFT + most * scale
    parts = [text(LEFT - 8, y_middle + 4.5, name, anchor="end"),
             f'<rect x="{LEFT}" y="{y:.1f}" width="{middle * scale:.1f}" height="{BAR}" class="{kind}"/>',
             f'<path d="M{low:.1f} {y_middle:.1f}H{high:.1f}M{low:.1f} {y_middle - 4:.1f}v8M{high:.1f} '
             f'{y_middle - 4:.1f}v8" class="whisker" fill="none" stroke-width="1.5"/>']
    return [*parts, text(max(high, LEFT + middle * scale) + 8, y_middle + 4.5, f"{middle:.3g}")]


def label(arm: Arm) -> str:
    return arm.name if arm.name.endswith(f" {arm.dtype}") else f"{arm.name}, {arm.dtype}"


def group(results: Results, batch: int, y: float) -> list[str]:
    """Bars of one batch size, on a scale of their own: batches differ by more than arms do."""
    arms = results.of(batch)
    most = max(max(results.values(batch, arm, "sequences_per_s")) for arm in arms)
    scale = (WIDTH - LEFT - RIGHT) / most
    bottom = y + 24 + len(arms) * (BAR + GAP)
    parts = [text(16, y + 14, f"batch {batch}", weight="bold")]
    distance, number = step(most), 0
    while number * distance <= most:
        x = LEFT + number * distance * scale
        parts += [f'<path d="M{x:.1f} {y + 20:.1f}V{bottom:.1f}" class="grid" stroke-width="1"/>',
                  text(x, bottom + 14, f"{number * distance:g}", "soft", "middle", 11)]
        number += 1
    for i, arm in enumerate(arms):
        parts += bar(y + 24 + i * (BAR + GAP), label(arm), "sida" if arm.is_sida else "peer",
                     results.values(batch, arm, "sequences_per_s"), scale)
    return parts


def draw(title: str, below: list[str], results: Results) -> str:
    heights = {batch: 24 + len(results.of(batch)) * (BAR + GAP) + GROUP for batch in results.batches()
               if results.of(batch)}
    height = TOP + sum(heights.values()) + BOTTOM - GROUP / 2
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" '
             f'height="{height:.0f}" font-family="DejaVu Sans, Helvetica, Arial, sans-serif">',
             f"<title>{escape(title)}</title>", f"<style>{STYLE}</style>",
             f'<rect width="{WIDTH}" height="{height:.0f}" class="page"/>',
             text(16, 28, title, size=18, weight="bold")]
    said = [*below, "sequences per second: median, and the least and the most of all rounds"]
    parts += [text(16, 50 + 18 * i, line, "soft", size=12.5) for i, line in enumerate(said)]
    y = TOP
    for batch, taken in heights.items():
        parts += group(results, batch, y)
        y += taken
    return "\n".join([*parts, "</svg>"]) + "\n"
