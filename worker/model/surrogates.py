r"""Lone surrogates in JSON, such as `\ud83d`, of texts that were cut in the middle of a character.

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
"""Fields whose values must stay distinct, whatever replaces the surrogates in them."""
_PARTS = ("id", "source")
"""The same for CloudEvents: never a UUID, which would be the id of an announced operation."""


def whole(body: bytes) -> bytes:
    """The JSON text with lone surrogates replaced; other text unchanged."""
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
