"""The README's commands, as they stand there: an evening with dead letters, the HTTP API, settings."""

import json
from pathlib import Path

from tests.certificates import Authority
from tests.command import Deviceops
from tests.documents import block, run
from tests.sending import DEVICES, OPERATIONS, report_body
from tests.serving import serving, token
from tests.test_seed_documents import OPERATION

LOADED = """
python -c '
from worker.settings import Settings
settings = Settings.load()
settings.amqp_tls(), settings.database_tls()
print(settings.shown())
'
"""
"""What ends a block of settings: they are read, and the files that they name."""


def test_an_evening_with_dead_letters(deviceops_on_sqlite: Deviceops) -> None:
    deviceops = deviceops_on_sqlite
    states = ("CREATED", "SUCCESS", "FAILURE")
    bodies = [report_body(OPERATIONS[0], DEVICES[0], state) for state in states]
    deviceops.out("ingest", "-", lines="".join(json.dumps(body) + "\n" for body in bodies))

    told = run(block("README.md", "dead-letters-evening"), deviceops)

    assert told.count("conflict") >= 2
    [letter] = deviceops.document("dead-letters", "list")
    assert letter["attempts"] == 2  # when it came, and once since: the dry run was none


def test_the_http_api_by_hand(deviceops_on_sqlite: Deviceops) -> None:
    _, setting = token(deviceops_on_sqlite, "other")
    announced = json.dumps({"type": "operation.announced", "body": {**OPERATION, "device_count": 3}})
    deviceops_on_sqlite.out("ingest", "-", lines=announced)
    script = block("README.md", "http-api")
    assert "\ndeviceops serve\n" in script
    with serving(deviceops_on_sqlite) as server:
        script = script.replace("deviceops serve\n", "").replace("http://127.0.0.1:8080", server.url)
        script = script.replace("state=DISPATCHING", "state=CREATED")
        script = (
            script.replace("curl -N", "curl --silent --max-time 2 -N").rstrip() + " || [ $? = 28 ]"
        )  # it goes on

        told = run(script, deviceops_on_sqlite, TOKEN=server.token)

    assert setting
    assert "DEVICEOPS_API_TOKENS=" in told
    assert '"count":1' in told
    assert "data: " in told


def test_the_settings_for_who_may_report(deviceops_on_sqlite: Deviceops) -> None:
    told = run("set -a\n" + block("README.md", "services") + LOADED, deviceops_on_sqlite)

    assert "operator-console" in told
    assert "CONVERGE" in told


def test_the_settings_for_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "etc")
    issued = authority.issue("worker")
    issued.cert.rename(tmp_path / "etc" / "worker.pem")
    issued.key.rename(tmp_path / "etc" / "worker.key")
    script = block("README.md", "tls").replace("/etc/deviceops", str(tmp_path / "etc"))

    told = run("set -a\n" + script + LOADED, Deviceops(tmp_path))

    assert "amqps://deviceops:***@broker.example/" in told
    assert "secret" not in told
