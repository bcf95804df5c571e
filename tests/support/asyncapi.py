"""Validation of a document by the schema of AsyncAPI 3.0.

`asyncapi-3.0.0.json` is `schemas/3.0.0.json` of the npm package @asyncapi/specs 6.11.1 (Apache License 2.0),
without its texts and examples.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs

_SCHEMA = Path(__file__).with_name("asyncapi-3.0.0.json")


@cache
def _validator() -> jsonschema_rs.Draft7Validator:
    return jsonschema_rs.Draft7Validator(json.loads(_SCHEMA.read_text()))


def validate(document: dict[str, Any]) -> None:
    """Raise jsonschema_rs.ValidationError, a ValueError, if a document is not AsyncAPI 3.0."""
    _validator().validate(document)
