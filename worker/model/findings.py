"""What pydantic finds wrong with a document, in words of JSON rather than of Python."""

from collections.abc import Mapping
from typing import Any

_WORDS = {
    "missing": "is missing",
    "extra_forbidden": "is not a known field",
    "dict_type": "Input should be an object",
    "model_type": "Input should be an object",
    "model_attributes_type": "Input should be an object",
}


def problem(finding: Mapping[str, Any]) -> str:
    """What is wrong, to follow the name of the field."""
    return _WORDS.get(finding["type"]) or str(finding["msg"]).removeprefix("Value error, ")
