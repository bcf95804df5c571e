"""Validation of an AsyncAPI 3.0 document: the specification's objects and fields, and that references resolve.

The fields are those of https://www.asyncapi.com/docs/reference/specification/v3.0.0 and of its AMQP bindings
0.3.0, for the objects that the contract uses: any other field is an error, but for extensions (`x-…`).
"""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import jsonschema_rs

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_REFERENCE: Schema = {
    "type": "object",
    "properties": {"$ref": {"type": "string", "pattern": "^#/"}},
    "required": ["$ref"],
    "additionalProperties": False,
}
_REFERENCES: Schema = {"type": "array", "items": _REFERENCE, "uniqueItems": True}
_NAME = r"^[A-Za-z0-9_\-]+$"


def _object(required: Mapping[str, Schema], optional: Mapping[str, Schema]) -> Schema:
    return {
        "type": "object",
        "required": list(required),
        "properties": {**required, **optional},
        "patternProperties": {"^x-": {}},
        "additionalProperties": False,
    }


def _map(of: Schema) -> Schema:
    return {"type": "object", "patternProperties": {_NAME: of}, "additionalProperties": False}


def _or_reference(of: Schema) -> Schema:
    return {"if": {"required": ["$ref"]}, "then": _REFERENCE, "else": of}


_DESCRIBED: Schema = {
    "title": _TEXT,
    "summary": _TEXT,
    "description": _TEXT,
    "tags": {"type": "array"},
    "externalDocs": {},
}
_BINDING = {"bindingVersion": {"const": "0.3.0"}}
_CHANNEL_BINDING: Schema = {
    "oneOf": [
        _object(
            {"is": {"const": "routingKey"}, **_BINDING},
            {
                "exchange": _object(
                    {},
                    {
                        "name": {"type": "string", "maxLength": 255},
                        "type": {"enum": ["topic", "direct", "fanout", "default", "headers"]},
                        "durable": {"type": "boolean"},
                        "autoDelete": {"type": "boolean"},
                        "vhost": _TEXT,
                    },
                )
            },
        ),
        _object(
            {"is": {"const": "queue"}, **_BINDING},
            {
                "queue": _object(
                    {},
                    {
                        "name": {"type": "string", "maxLength": 255},
                        "durable": {"type": "boolean"},
                        "exclusive": {"type": "boolean"},
                        "autoDelete": {"type": "boolean"},
                        "vhost": _TEXT,
                    },
                )
            },
        ),
    ]
}
_OPERATION_BINDING = _object(
    _BINDING,
    {
        "expiration": {"type": "integer", "minimum": 0},
        "userId": _TEXT,
        "cc": {"type": "array", "items": _TEXT},
        "priority": {"type": "integer"},
        "deliveryMode": {"enum": [1, 2]},
        "mandatory": {"type": "boolean"},
        "bcc": {"type": "array", "items": _TEXT},
        "timestamp": {"type": "boolean"},
        "ack": {"type": "boolean"},
    },
)
_MESSAGE_BINDING = _object(_BINDING, {"contentEncoding": _TEXT, "messageType": _TEXT})


def _bindings(of: Schema) -> Schema:
    return _object({"amqp": of}, {})


_SERVER = _object(
    {"host": _TEXT, "protocol": {"enum": ["amqp", "amqps"]}},
    {
        **_DESCRIBED,
        "protocolVersion": _TEXT,
        "pathname": _TEXT,
        "variables": _map({"type": "object"}),
        "security": _REFERENCES,
        "bindings": {"type": "object"},
    },
)
_PARAMETER = _object(
    {},
    {
        "enum": {"type": "array", "items": _TEXT},
        "default": _TEXT,
        "description": _TEXT,
        "examples": {"type": "array", "items": _TEXT},
        "location": _TEXT,
    },
)
_EXAMPLE = _object({}, {"headers": {"type": "object"}, "payload": {}, "name": _TEXT, "summary": _TEXT})
_MESSAGE = _object(
    {},
    {
        **_DESCRIBED,
        "headers": {"type": "object"},
        "payload": {"type": "object"},
        "correlationId": {"type": "object"},
        "contentType": _TEXT,
        "name": _TEXT,
        "bindings": _bindings(_MESSAGE_BINDING),
        "examples": {"type": "array", "items": _EXAMPLE},
        "traits": {"type": "array"},
    },
)
_CHANNEL = _object(
    {},
    {
        **_DESCRIBED,
        "address": {"type": ["string", "null"]},
        "messages": _map(_or_reference(_MESSAGE)),
        "servers": _REFERENCES,
        "parameters": _map(_or_reference(_PARAMETER)),
        "bindings": _bindings(_CHANNEL_BINDING),
    },
)
_OPERATION = _object(
    {"action": {"enum": ["send", "receive"]}, "channel": _REFERENCE},
    {
        **_DESCRIBED,
        "security": _REFERENCES,
        "bindings": _bindings(_OPERATION_BINDING),
        "traits": {"type": "array"},
        "messages": _REFERENCES,
        "reply": {"type": "object"},
    },
)
_SECURITY = _object({"type": {"enum": ["userPassword", "X509", "plain", "scramSha256"]}}, {"description": _TEXT})
_INFO = _object(
    {"title": _TEXT, "version": _TEXT},
    {
        "description": _TEXT,
        "termsOfService": _TEXT,
        "contact": {"type": "object"},
        "license": _object({"name": _TEXT}, {"url": _TEXT}),
        "tags": {"type": "array"},
        "externalDocs": {"type": "object"},
    },
)
_DOCUMENT = _object(
    {"asyncapi": {"const": "3.0.0"}, "info": _INFO},
    {
        "id": _TEXT,
        "defaultContentType": _TEXT,
        "servers": _map(_or_reference(_SERVER)),
        "channels": _map(_or_reference(_CHANNEL)),
        "operations": _map(_or_reference(_OPERATION)),
        "components": _object(
            {},
            {
                "schemas": _map({"type": "object"}),
                "messages": _map(_or_reference(_MESSAGE)),
                "securitySchemes": _map(_or_reference(_SECURITY)),
            },
        ),
    },
)


@cache
def _validator() -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(_DOCUMENT)


def validate(document: dict[str, Any]) -> None:
    """Raise ValueError (jsonschema_rs.ValidationError is one) if a document is not AsyncAPI 3.0."""
    _validator().validate(document)
    for schema in document.get("components", {}).get("schemas", {}).values():
        jsonschema_rs.meta.validate(schema)
    for reference in _references(document):
        found: Any = document
        for part in reference.removeprefix("#/").split("/"):
            if not isinstance(found, dict) or part not in found:
                raise ValueError(f"{reference} leads nowhere")
            found = found[part]


def _references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, each in value.items():
            if key == "$ref" and isinstance(each, str):
                yield each
            else:
                yield from _references(each)
    elif isinstance(value, list):
        for each in value:
            yield from _references(each)
