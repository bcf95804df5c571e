"""A benchmark's rates as a picture, in SVG."""

from collections.abc import Mapping
from pathlib import Path

import leather


def draw(rates: Mapping[str, float], names: Mapping[str, str], path: Path) -> None:
    """Write bars, the largest rate first."""
    chart = leather.Chart("Reports a second")
    ordered = sorted(rates.items(), key=lambda pair: pair[1])
    chart.add_bars([(round(rate), f"({name}) {names[name]}") for name, rate in ordered])
    chart.to_svg(str(path), width=900, height=420)
