"""The picture of the page of operations in README.md: of real messages, processed as they would be.

It is drawn at each run; `pytest tests/browser/test_picture.py -k sqlite --pictures` puts it into the repository.
"""

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pytest

from tests.support.browsing.appearance import Appearance
from tests.support.browsing.browser import Browser
from tests.support.command import Deviceops
from tests.support.documents import ROOT
from tests.support.elapsing import elapse_at

PICTURE = "deploy/pictures/operations.png"
AT_MOST = 150_000
"""Bytes."""
SCREEN = Appearance(1_280, 830, "light")
MINUTES = 12
"""For how long the operations are at work."""


class RollOut(NamedTuple):
    """An operation of the picture."""

    type: str
    devices: int
    seed: int
    part: float = 1
    """The part of its messages that has come."""
    announced: Mapping[str, object] = {}
    """More fields of its announcement."""
    unknown: int = 0
    """Devices that report though no announcement names them: their reports are parked."""

    def lines(self, deviceops: Deviceops) -> Sequence[str]:
        """Its messages, as `deviceops simulate` makes them, with its type and its fields."""
        made = deviceops.out("simulate", f"--devices={self.devices}", f"--seed={self.seed}", "--silent=0.03")
        documents = list(map(json.loads, made.splitlines()))
        known = documents[0]["body"]["device_ids"]
        documents[0]["body"] |= {**self.announced, "device_ids": known[self.unknown :]}
        for document in documents:
            document.get("body", document)["operation_type"] = self.type
        return [f"{json.dumps(document)}\n" for document in documents[: int(self.part * len(documents))]]


ROLL_OUTS = (
    RollOut("CONVERGE", 400, 21),
    RollOut("REBOOT", 160, 9, 0.8, unknown=14),
    RollOut("CONVERGE", 240, 12, 0.4, {"abort": {"failed_percent": 8, "min_settled": 20, "action": "notify"}}),
    RollOut("UPGRADE", 900, 4, 0.62, {"timeouts": {"total": 7_200}}),
)


def play(deviceops: Deviceops) -> None:
    """Process the messages of all, a portion in each minute."""
    all_lines = [roll_out.lines(deviceops) for roll_out in ROLL_OUTS]
    for minute in range(MINUTES):
        portion = [
            line
            for lines in all_lines
            for line in lines[minute * len(lines) // MINUTES : (minute + 1) * len(lines) // MINUTES]
        ]
        deviceops.out("ingest", "-", lines="".join(portion))
        elapse_at(deviceops.settings["database_url"], 60)


def test_the_picture_of_the_readme(
    operator: Browser, deviceops_at_server: Deviceops, request: pytest.FixtureRequest
) -> None:
    play(deviceops_at_server)

    operator.look(SCREEN)
    operator.open("/")
    operator.wait_for(f"{len(ROLL_OUTS)} operations", " parked", "threshold", "/min")
    picture = operator.picture()
    (operator.folder / "operations.png").write_bytes(picture)
    assert picture.startswith(b"\x89PNG")
    assert len(picture) <= AT_MOST
    assert operator.too_wide() == []
    assert operator.run("return document.documentElement.scrollHeight") <= SCREEN.height
    if request.config.getoption("--pictures"):
        (ROOT / PICTURE).write_bytes(picture)
    assert (ROOT / PICTURE).stat().st_size <= AT_MOST
    assert PICTURE in (ROOT / "README.md").read_text()
