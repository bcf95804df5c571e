"""The body, the properties and the headers of a dead letter as a page shows them, of limited length."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from worker.dead_letters.readable import indented, unpacked
from worker.store import documents

SHOWN = 50_000
"""Characters that are shown of a body."""
INDENTED = 1_000_000
"""Bytes of a body that is indented at most."""
EDITED = 500_000
"""Bytes of a body that is edited on a page at most, unpacked."""
LONGEST_EDITED = 1_000_000
"""Characters of the text that is edited: what is indented is longer."""
_DUMPED = 4_096
"""Bytes of one that is no text."""
_IN_LINE = 16
_LONGEST_VALUE = 2_000
_MOST_VALUES = 100


class Body(NamedTuple):
    """A body as it is shown."""

    kind: str
    """What it is, in words."""
    text: str
    is_cut: bool
    size: int
    """Bytes as it was received."""
    is_unpacked: bool
    is_editable: bool
    """Whether it can be edited on a page."""


def shown_body(letter: documents.DeadLetterDetails) -> Body:
    """The body, unpacked and indented if it is JSON; of other bytes than text their values. It takes time."""
    plain = unpacked(letter)
    facts = len(letter.body), plain != letter.body, editable(plain) is not None
    if not plain:
        return Body("empty", "", False, *facts)
    pretty = indented(plain) if len(plain) <= INDENTED else plain
    try:
        text = pretty.decode()
    except UnicodeDecodeError:
        return Body("not text", _dump(plain[:_DUMPED]), len(plain) > _DUMPED, *facts)
    kind = "JSON" if pretty is not plain else "text"
    return Body(kind, visible(text[:SHOWN]), len(text) > SHOWN, *facts)


def editable(body: bytes) -> str | None:
    """A body as the text that is edited, with line ends as forms have them once read; None if it is too large."""
    if len(body) > EDITED:
        return None
    text = line_ends(indented(body).decode(errors="backslashreplace"))
    return text if len(text) <= LONGEST_EDITED else None


def line_ends(text: str) -> str:
    """A text with line feeds alone: browsers send CRLF."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def visible(text: str) -> str:
    """Text of several lines: what cannot be printed is escaped."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in line_ends(text)
    )


def shown_table(table: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """Properties or headers as names and texts; of very many the first ones."""
    pairs = [(name, value if isinstance(value, str) else _json(value)) for name, value in table.items()]
    more = [("…", f"and {len(pairs) - _MOST_VALUES:,} more")] if len(pairs) > _MOST_VALUES else []
    return [(name, _cut(value)) for name, value in pairs[:_MOST_VALUES]] + more


def _cut(value: str) -> str:
    return value if len(value) <= _LONGEST_VALUE else f"{value[:_LONGEST_VALUE]}…"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _dump(data: bytes) -> str:
    lines = []
    for start in range(0, len(data), _IN_LINE):
        line = data[start : start + _IN_LINE]
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in line)
        lines.append(f"{start:08x}  {line.hex(' '):<47}  {text}")
    return "\n".join(lines)
