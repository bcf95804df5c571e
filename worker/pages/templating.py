"""Jinja2: every value is escaped, a name that is missing is an error."""

from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from worker.config.api_tokens import Scope
from worker.model.text import counted, one_line
from worker.model.timing import in_words, moment
from worker.pages import static_files
from worker.pages.bars import bar_of

_SIZES = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB"))
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))


NAVIGATION = (
    ("/", "Operations", Scope.READ_OPERATION),
    ("/dead-letters", "Dead letters", Scope.ADMIN_DEAD_LETTERS),
    ("/system", "System", Scope.READ_OPERATION),
)
"""Address, name and required scope of what every page links to."""


def number(value: float | None) -> Markup:
    """A number with separators; the browser writes it as its language does. Empty for None."""
    if value is None:
        return Markup("")
    text = f"{value:,}" if isinstance(value, int) else f"{value:,.3g}" if value < 1_000 else f"{value:,.0f}"
    return Markup('<data class="number" value="{}">{}</data>').format(value, text)


def when(moment: datetime | None) -> Markup:
    """A time in UTC; the browser writes it in its language, and in its zone if that is chosen. Empty for None."""
    if moment is None:
        return Markup("")
    utc = moment.astimezone(UTC)
    machine, text = f"{utc:%Y-%m-%dT%H:%M:%S}Z", f"{utc:%Y-%m-%d %H:%M:%S} UTC"
    return Markup('<time class="when" datetime="{}">{}</time>').format(machine, text)


def duration(seconds: float) -> str:
    """A duration to two units, such as `2 h 5 min`; a negative one is that of its amount."""
    left, parts = abs(round(seconds)), []
    for size, unit in _UNITS:
        if left >= size:
            parts.append(f"{left // size:,} {unit}")
            left %= size
    if left or not parts:
        parts.append(f"{left} s")
    return " ".join(parts[:2])


def until(moment: datetime) -> str:
    """How long it is to a time or how long ago it was, such as `in 5 min` or `3 h ago`."""
    seconds = (moment - datetime.now(UTC)).total_seconds()
    return f"in {duration(seconds)}" if seconds >= 0 else f"{duration(seconds)} ago"


def bytes_(number_: int) -> str:
    """A size to three digits, such as `12.3 MB`."""
    for size, unit in _SIZES:
        if number_ >= size:
            return f"{number_ / size:.3g} {unit}"
    return f"{number_} B"


def milliseconds(seconds: float) -> str:
    """A short duration, such as `0.42 ms`."""
    return f"{1_000 * seconds:,.2g} ms" if seconds < 0.1 else f"{1_000 * seconds:,.0f} ms"


def outside(value: object) -> Markup:
    """Text from outside on one line: escaped, without control characters, with a direction of its own."""
    return Markup('<bdi class="text">{}</bdi>').format(one_line(str(value)))


def short(value: object, length: int = 8) -> Markup:
    """The beginning of a text, with all of it in its tooltip."""
    text = one_line(str(value))
    if len(text) <= length:
        return escape(text)
    return Markup('<abbr title="{}">{}</abbr>').format(text, text[:length])


def state_class(state: str) -> str:
    """The class in the style sheet of a state's name."""
    return f"state-{state.lower()}"


def make_environment() -> Environment:
    """The environment of all templates."""
    environment = Environment(
        loader=PackageLoader("worker.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Any] = {
        "number": number,
        "when": when,
        "until": until,
        "duration": duration,
        "outside": outside,
        "one_line": one_line,
        "short": short,
        "bytes": bytes_,
        "milliseconds": milliseconds,
        "state_class": state_class,
        "counted": counted,
        "in_words": in_words,
    }
    environment.filters.update(filters)
    environment.globals.update(static=static_files.address, bar_of=bar_of, moment=moment, navigation=NAVIGATION)
    return environment
