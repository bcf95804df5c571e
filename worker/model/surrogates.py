r"""Texts that were cut in the middle of a character: JSON then has half of a surrogate pair, such as `\ud83d`.

Senders that count in UTF-16 (JavaScript, Java, .NET) cut long texts so. It is JSON by its grammar, and no strict
reader takes it; what is no text in one field is to cost none of the others.
"""

import json
import re
from typing import Any

from worker.model.identity import identity, is_text

_HALF = re.compile(
    rb"\\u[dD](?:[89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD])[c-fC-F][0-9a-fA-F]{2})"
)
_IDS = ("report_id", "message_id")
"""Fields whose values are to stay different, whatever stands for the halves in them."""
_PARTS = ("id", "source")
"""The same, of a CloudEvent: never a UUID, which the id of an announced operation would be taken for."""


def whole(body: bytes) -> bytes:
    """A JSON text with something in the place of halves; any other text, and what has none, as it is."""
    if b"\\u" not in body or _HALF.search(body) is None:
        return body
    try:
        document = json.loads(body.decode(), object_hook=_with_ids)
        text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    except (ValueError, RecursionError):
        return body
    return text.encode(errors="replace")


def _with_ids(table: dict[str, Any]) -> dict[str, Any]:
    for name in (*_IDS, *_PARTS):
        id_ = table.get(name)
        if isinstance(id_, str) and not is_text(id_):
            table[name] = identity(id_) if name in _IDS else f"text {identity(id_)}"
    return table
