"""Each alert is tested, and has a runbook whose commands exist."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from tests.support.prometheus import MONITORING
from worker.cli import app

RUNBOOKS = (MONITORING / "runbooks.md").read_text()


def alerts() -> Iterator[dict[str, Any]]:
    for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]:
        yield from group["rules"]


@pytest.mark.parametrize("alert", list(alerts()), ids=lambda alert: alert["alert"])
def test_every_alert_is_tested_and_says_how_bad_it_is_and_what_to_do(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert {"summary", "description", "runbook_url"} <= alert["annotations"].keys()
    anchor = alert["annotations"]["runbook_url"].removeprefix("deploy/monitoring/runbooks.md#")
    assert anchor in {heading.lower() for heading in re.findall(r"^## (\w+)$", RUNBOOKS, re.MULTILINE)}
    tests = yaml.safe_load((MONITORING / "alerts_test.yml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"] if case["alertname"] == alert["alert"]]
    assert {"exp_alerts" in case for case in cases} == {True, False}, "one case fires, and one does not"


def test_every_command_of_the_runbooks_is_one_that_there_is() -> None:
    commands = set(re.findall(r"`deviceops ([a-z-]+(?: [a-z]+)?)((?: --[a-z-]+)*)", RUNBOOKS))
    assert len(commands) > 5
    runner = CliRunner()
    for command, options in commands:
        told = runner.invoke(app, [*command.split(), "--help"], env={"COLUMNS": "160"})
        assert told.exit_code == 0, command
        assert all(option in told.output for option in options.split()), (command, options)
