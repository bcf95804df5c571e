"""A client that a well-known generator makes of the OpenAPI document works, without a line of ours."""

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.support.command import Deviceops
from tests.support.seed import DEVICE_ID, OPERATION
from tests.support.serving import Server, serving

GENERATOR = Path(sys.executable).parent / "openapi-python-client"


@pytest.fixture
def server(deviceops_on_sqlite: Deviceops) -> Iterator[Server]:
    """A server to generate from and to use."""
    with serving(deviceops_on_sqlite) as server:
        yield server


@pytest.fixture
def generated(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a generated package that can be imported; its making gave no warning."""
    document, config = tmp_path / "openapi.json", tmp_path / "config.json"
    with server.client() as api:
        document.write_bytes(api.get("/openapi.json").content)
    config.write_text(json.dumps({"post_hooks": []}))
    package = "fleet_client"
    options = {"--path": document, "--output-path": tmp_path / package, "--meta": "none", "--config": config}
    words = [str(word) for option in options.items() for word in option]
    done = subprocess.run(
        [GENERATOR, "generate", "--fail-on-warning", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    monkeypatch.syspath_prepend(tmp_path)
    return package


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What is to be closed in the end."""
    with ExitStack() as stack:
        yield stack


def test_a_generated_client_announces_reports_reads_and_understands_errors(
    server: Server, generated: str, stack: ExitStack
) -> None:
    def module(name: str) -> Any:
        return importlib.import_module(f"{generated}.{name}")

    models, calls = module("models"), "api.operations"
    client = stack.enter_context(module("client").AuthenticatedClient(server.url, server.token))
    operation_id, device_id = UUID(OPERATION["id"]), UUID(DEVICE_ID)

    announcement = models.Announcement(id=operation_id, operation_type="CONVERGE", device_ids=[device_id])
    announced = module(f"{calls}.announce_operation").sync(client=client, body=announcement)
    assert announced.content.state is models.OperationState.RESOLVED

    def update(state: Any) -> Any:
        report = models.DeviceOperationReport(state=state, service_id="drift-service", reason="test")
        return module("api.device_operations.update_device_operation").sync(
            operation_id, device_id, client=client, body=report
        )

    updated = update(models.DeviceOperationReportState.SUCCESS)
    assert updated.content.state is models.DeviceOperationState.SUCCESS
    assert updated.content.device_operation_activity[0].device_operation_state.value == "CREATED"
    refused = update(models.DeviceOperationReportStateCode.VALUE_60)
    assert isinstance(refused, models.Error)
    assert (refused.code, refused.content.allowed_states) == (400, ["COMPLETED"])

    page = module("api.device_operations.list_device_operations").sync(operation_id, client=client, limit=1)
    assert page.content.count == 1
    assert [each.device_id for each in page.content.results] == [device_id]
    operations = module(f"{calls}.list_operations_of_device").sync(device_id, client=client)
    assert operations.results[0].operation_stats.device_operation_statuses_count.success_device_count == 1
    cancelled = module(f"{calls}.update_operation").sync(
        operation_id, client=client, body=models.OperationUpdate(state="CANCELLED")
    )
    assert (cancelled.operation_id, cancelled.status) == (operation_id, "COMPLETED")
    letters = module("api.dead_letters.list_dead_letters").sync(client=client)
    assert letters.content.count == 0
