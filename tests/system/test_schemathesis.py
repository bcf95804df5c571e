"""Schemathesis calls the API with all that its OpenAPI document allows and forbids, on both databases."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import Deviceops
from tests.support.serving import serving

SCHEMATHESIS = Path(sys.executable).parent / "schemathesis"

# By the contract a report that contradicts the state is a bad request; schemathesis takes that for a valid request
# that was rejected. Streams of events never end.
CONFIGURATION = """
[[operations]]
include-name = "PUT /v0/operations/{operation_id}/devices/{device_id}/"
checks.positive_data_acceptance.expected-statuses = ["2xx", 400, 403, 404]

[[operations]]
include-path-regex = "/events$"
enabled = false
"""


@pytest.mark.long
@pytest.mark.timeout(1_800)
def test_no_request_meets_a_defect_or_an_answer_that_is_not_documented(
    deviceops: Deviceops, full: bool, tmp_path: Path
) -> None:
    """5,000 cases and more on each database with --full, some every day."""
    fleet = deviceops.out(
        "simulate", "--operations", "2", "--devices", "20", "--conflicts", "0.2", "--early", "0.2"
    )
    deviceops.out("ingest", "-", lines=fleet)
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
    phases = "examples,coverage,fuzzing,stateful" if full else "examples,fuzzing,stateful"
    with serving(deviceops) as server:
        done = subprocess.run(
            [
                SCHEMATHESIS,
                *("run", f"{server.url}/openapi.json", "--header", f"Authorization: Bearer {server.token}"),
                *("--max-examples", "400" if full else "8", "--no-color", "--generation-database", "none"),
                *(
                    "--request-timeout",
                    "60",
                    "--phases",
                    phases,
                ),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        server.stop()
    statuses = [entry["status"] for entry in server.log if entry["event"] == "request"]
    print(f"{len(statuses):,} requests")  # noqa: T201
    assert done.returncode == 0, done.stdout[-10_000:]
    found = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert found is not None, done.stdout[-2_000:]
    assert found[1] == found[2]
    assert int(found[1]) >= (5_000 if full else 100)
    assert max(statuses) < 500
    assert deviceops.document("recount")["drifted"] == []
