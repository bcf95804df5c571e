"""A benchmark's rates as a picture, in SVG: deviceops in colour, what it is measured beside in grey."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import leather

OURS, OTHERS = "#2a7ab8", "#9a9a9a"
FONTS = "Monaco, DejaVu Sans Mono, monospace"


def draw(rates: Mapping[str, float], names: Mapping[str, str], path: Path) -> None:
    """Write bars, the largest rate first."""
    for part in ("title", "tick"):
        setattr(leather.theme, f"{part}_font_family", FONTS)
    chart = leather.Chart("Reports a second")
    ordered = sorted(rates.items(), key=lambda pair: pair[1], reverse=True)
    chart.add_bars([(round(rate), f"({name}) {names[name]}") for name, rate in ordered], fill_color=_colour)
    chart.to_svg(str(path), width=900, height=420)


def _colour(datum: Any) -> str:
    return OURS if ") deviceops" in datum.y else OTHERS
