"""Widths and colour schemes in which a page is looked at, and what may not be wider than the screen."""

from typing import NamedTuple


class Appearance(NamedTuple):
    """A screen."""

    width: int
    """In CSS pixels."""
    height: int
    scheme: str
    """`light` or `dark`."""

    def __str__(self) -> str:
        return f"{self.width}-{self.scheme}"


HEIGHTS = {320: 640, 1_280: 800, 2_560: 1_440}
"""Of screens, by their widths: a small telephone's, a laptop's, a large monitor's."""
SCHEMES = "light", "dark"
APPEARANCES = [Appearance(width, height, scheme) for width, height in HEIGHTS.items() for scheme in SCHEMES]
LAPTOP = Appearance(1_280, HEIGHTS[1_280], "light")
"""The appearance with which a test begins."""

TOO_WIDE = """
const root = document.documentElement, width = root.clientWidth;
const named = element => element.tagName.toLowerCase() + (element.id && '#' + element.id)
    + [...element.classList].map(name => '.' + name).join('');
// What is in a box that scrolls by itself makes nothing else wider.
const boxed = element => element !== document.body && element !== root && (
    getComputedStyle(element).overflowX !== 'visible' || (element.parentElement && boxed(element.parentElement)));
if (root.scrollWidth <= width && document.body.scrollWidth <= width) return [];
return [`the page: ${Math.max(root.scrollWidth, document.body.scrollWidth)} of ${width} pixels`,
    ...[...document.body.querySelectorAll('*')]
        .filter(element => element.getBoundingClientRect().right > width + 1
            && !(element.parentElement && boxed(element.parentElement)))
        .map(element => `${named(element)}: until ${Math.round(element.getBoundingClientRect().right)}`)];
"""
"""A script: elements that make the page scroll sideways, the page first; none if it does not."""
