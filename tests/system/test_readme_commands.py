"""The commands of the pages, as they stand there: first steps, dead letters, the HTTP API, settings."""

import json
import re
import subprocess
import sys
from pathlib import Path

from sqlalchemy import make_url

from tests.support.brokering import eventually, until_logged
from tests.support.certificates import Authority
from tests.support.command import Deviceops
from tests.support.documents import ROOT, block, run
from tests.support.seed import OPERATION
from tests.support.sending import DEVICES, OPERATIONS, report_body
from tests.support.services.machine import free_port

GETTING_STARTED = "deploy/getting-started.md"
LOADED = """
python -c '
from worker.config.settings import Settings
settings = Settings.load()
settings.amqp_tls(), settings.database_tls()
print(settings.shown())
'
"""
"""What ends a block of settings: they are read, and the files that they name."""


def ingest(deviceops: Deviceops, *bodies: object) -> None:
    deviceops.out("ingest", "-", lines="".join(json.dumps(body) + "\n" for body in bodies))


def test_the_generated_parts_of_the_pages_are_what_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, "deploy/pages.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "`--until-idle SECONDS`" in (ROOT / "deploy/cli.md").read_text()


def from_a_service_that_may_not_report_yet(deviceops: Deviceops) -> None:
    ingest(deviceops, report_body(OPERATIONS[0], DEVICES[0], "CREATED"))
    strict = deviceops.with_settings(services='{"drift-service": {}}')
    ingest(strict, report_body(OPERATIONS[0], DEVICES[0], "SUCCESS", service_id="ota-service"))


def test_an_evening_with_dead_letters(deviceops_on_sqlite: Deviceops) -> None:
    deviceops = deviceops_on_sqlite
    ingest(deviceops, report_body(OPERATIONS[0], DEVICES[1], "CREATED"))
    ingest(deviceops, report_body(OPERATIONS[0], DEVICES[1], "SUCESS"))
    from_a_service_that_may_not_report_yet(deviceops)

    printed = run(block("README.md", "dead-letters-evening"), deviceops)

    assert "'ota-service' is not among" in printed
    assert "SUCESS" in printed
    assert deviceops.document("dead-letters", "list") == []
    [letter] = deviceops.document("dead-letters", "list", "--reason", "unknown_service", "--status", "all")
    assert (letter["status"], letter["attempts"]) == ("resolved", 2)  # a dry run is none
    assert deviceops.document("device", str(OPERATIONS[0]), str(DEVICES[0]))["state"] == "SUCCESS"
    assert deviceops.document("device", str(OPERATIONS[0]), str(DEVICES[1]))["state"] == "SUCCESS"


def test_a_replay_of_dead_letters(deviceops_on_sqlite: Deviceops) -> None:
    from_a_service_that_may_not_report_yet(deviceops_on_sqlite)

    run(block("deploy/dead-letters.md", "dead-letters-replay"), deviceops_on_sqlite)

    [letter] = deviceops_on_sqlite.document("dead-letters", "list", "--status", "all")
    assert (letter["status"], letter["attempts"]) == ("resolved", 2)


def test_the_http_api_by_hand_has_tokens(deviceops_on_sqlite: Deviceops) -> None:
    announced = {"type": "operation.announced", "body": {**OPERATION, "device_count": 3}}
    ingest(deviceops_on_sqlite, announced)
    port = str(free_port())
    script = block("deploy/http-api.md", "http-api")
    assert "\ndeviceops serve &\n" in script
    script = script.replace("8080", port).replace("state=DISPATCHING", "state=CREATED")
    script = script.replace("deviceops serve &\n", "deviceops serve &\ntrap 'kill $!' EXIT\n")
    script = script.replace("curl -N", "curl --silent --max-time 2 -N").rstrip()
    script += " || [ $? = 28 ]\n"  # events go on
    lists = "".join(block("deploy/http-api.md", name) for name in ("filters", "export"))
    script += lists.replace("8080", port).replace("curl", "curl --silent") + "cat failed.csv\n"
    script += f"curl --silent http://127.0.0.1:{port}/v0/operations/\n"  # no token

    printed = run(script, deviceops_on_sqlite.with_settings(http_port=port, http_probe_port="0"))

    assert '"count":1' in printed
    assert "data: " in printed
    assert '"count":0' in printed
    assert "device_id,state,code," in printed
    assert '"code":401' in printed.replace(" ", "")


def test_the_first_steps_on_postgresql_and_rabbitmq(
    new_empty_postgresql_database: str, deviceops_on_broker: Deviceops, tmp_path: Path
) -> None:
    url = make_url(new_empty_postgresql_database).set(drivername="postgresql")
    addresses = {
        "postgresql://deviceops:secret@localhost/deviceops": url.render_as_string(hide_password=False),
        "amqp://guest:guest@localhost:5672/": deviceops_on_broker.settings["amqp_url"],
    }
    kept = {"topology_prefix": deviceops_on_broker.settings["topology_prefix"], "probe_port": "0"}
    deviceops = Deviceops(tmp_path, kept)
    configuring = block(GETTING_STARTED, "getting-started-configure")
    for shown, address in addresses.items():
        assert shown in configuring
        configuring = configuring.replace(shown, address)

    run(configuring, deviceops)
    printed = " ".join(run(block(GETTING_STARTED, "getting-started-migrate"), deviceops).split())
    assert "ready, and a write was committed" in printed
    assert "not declared yet" in printed
    [words] = block(GETTING_STARTED, "getting-started-run").splitlines()
    with deviceops.running(*words.split()[1:]) as worker:
        until_logged(worker, "consuming")
        run(block(GETTING_STARTED, "getting-started-announce"), deviceops)
        run(block(GETTING_STARTED, "getting-started-report"), deviceops)
        eventually(lambda: len(deviceops.document("dead-letters", "list")) == 1)
        eventually(lambda: deviceops.document("devices", OPERATION["id"], "--state", "SUCCESS")["count"] == 1)
        printed = run(block(GETTING_STARTED, "getting-started-status"), deviceops)
    assert "malformed" in printed
    assert "SUCESS" in printed


def test_the_settings_for_who_may_report(deviceops_on_sqlite: Deviceops) -> None:
    printed = run("set -a\n" + block("deploy/security.md", "services") + LOADED, deviceops_on_sqlite)

    assert "operator-console" in printed
    assert "CONVERGE" in printed


def test_the_settings_and_the_command_for_timeouts(deviceops_on_sqlite: Deviceops) -> None:
    printed = run("set -a\n" + block("deploy/timeouts.md", "timeouts") + LOADED, deviceops_on_sqlite)
    assert "CONVERGE" in printed
    assert "604800" in printed

    both = run(block("deploy/timeouts.md", "expire"), deviceops_on_sqlite)
    assert "would time out" in both
    assert "timed out" in both


def test_the_addresses_of_clusters(tmp_path: Path) -> None:
    printed = run("set -a\n" + block("deploy/clusters.md", "cluster-addresses") + LOADED, Deviceops(tmp_path))

    assert "amqp://deviceops:***@a.example:5672,b.example:5672,c.example:5672/" in printed
    assert re.search(r"postgresql.*a\.example.*b\.example.*5433", printed)
    assert "secret" not in printed


def test_the_settings_for_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "etc")
    issued = authority.issue("worker")
    issued.cert.rename(tmp_path / "etc" / "worker.pem")
    issued.key.rename(tmp_path / "etc" / "worker.key")
    script = block("deploy/security.md", "tls").replace("/etc/deviceops", str(tmp_path / "etc"))

    printed = run("set -a\n" + script + LOADED, Deviceops(tmp_path))

    assert "amqps://deviceops:***@broker.example/" in printed
    assert "secret" not in printed
