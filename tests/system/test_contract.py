"""The command `deviceops contract`: its document is AsyncAPI, and it prints a JSON schema of each type."""

import json
from collections.abc import Iterator

import jsonschema_rs
import pytest

from tests.support.asyncapi import validate as validate_asyncapi
from tests.support.command import Deviceops
from tests.support.sending import ANNOUNCEMENT, REPORT, REPORTS
from worker.asyncapi import document as asyncapi
from worker.model.changes import ChangeType


def references(document: object) -> Iterator[str]:
    """Every $ref within a document."""
    for value in (
        document.values() if isinstance(document, dict) else document if isinstance(document, list) else ()
    ):
        yield from references(value)
    if isinstance(document, dict) and isinstance(document.get("$ref"), str):
        yield document["$ref"]


def test_the_command_prints_a_document_that_asyncapi_takes_of_the_settings(deviceops_on_sqlite: Deviceops) -> None:
    settings = {"amqp_url": "amqps://user:secret@broker.example:5673/", "topology_prefix": "fleet"}
    text = deviceops_on_sqlite.with_settings(**settings).out("contract")

    document = json.loads(text)
    assert "secret" not in text
    validate_asyncapi(document)
    channels = document["channels"]
    assert document["servers"]["broker"]["host"] == "broker.example:5673"
    assert channels["exchange"]["bindings"]["amqp"]["exchange"]["name"] == "fleet"
    assert (
        channels["queue"]["bindings"]["amqp"]["queue"]["name"] == channels["queue"]["address"] == "fleet.reports"
    )
    assert channels["operationChanged"]["bindings"]["amqp"]["exchange"]["name"] == "fleet.changes"
    for reference in references(document):
        place = document
        for name in reference.removeprefix("#/").split("/"):
            place = place[name]


@pytest.mark.parametrize("type_", [REPORT, REPORTS, ANNOUNCEMENT, *ChangeType])
def test_the_command_prints_a_json_schema_of_each_type(deviceops_on_sqlite: Deviceops, type_: str) -> None:
    schema = deviceops_on_sqlite.out("contract", "--format", "json-schema", "--type", type_)

    jsonschema_rs.meta.validate(json.loads(schema))
    assert json.loads(schema) == json.loads(json.dumps(asyncapi.json_schema(type_)))


def test_a_type_beside_asyncapi_is_a_usage_error_and_without_one_a_schema_is_that_of_a_report(
    deviceops_on_sqlite: Deviceops,
) -> None:
    refused = deviceops_on_sqlite("contract", "--type", REPORT)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "--type goes with --format json-schema" in refused.stderr
    assert json.loads(deviceops_on_sqlite.out("contract", "--format", "json-schema"))["title"] == REPORT
