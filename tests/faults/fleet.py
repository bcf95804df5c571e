"""Reports about one operation, in an order in which none can rely on another, and what must come of them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from uuid import UUID

from tests.support.rules import counters_of, operation_state_of

WAY = ["CREATED", "INITIATED", "DISPATCHED", "PROCESSING"]
ENDS = ["SUCCESS", "FAILURE", "CANCELLED", "TIMEOUT"]


@dataclass
class Fleet:
    """An operation of its own for each fleet; every device reports each state on its way once."""

    random: Random
    devices: int = 40
    operation: UUID = field(init=False)
    reports: dict[str, bytes] = field(init=False)
    """The bodies, by the report's id, in the order in which they are sent."""
    ends: list[str] = field(init=False)
    """The last state of each device."""

    def __post_init__(self) -> None:
        self.operation = self._uuid()
        self.ends = [self.random.choice(ENDS) for _ in range(self.devices)]
        reports = []
        for end in self.ends:
            device = str(self._uuid())
            for state in (*WAY, end):
                body = {
                    "operation_id": str(self.operation),
                    "device_id": device,
                    "state": state,
                    "service_id": "drift-service",
                    "operation_type": "CONVERGE",
                }
                reports.append((str(self._uuid()), json.dumps(body).encode()))
        self.random.shuffle(reports)
        self.reports = dict(reports)

    def _uuid(self) -> UUID:
        return UUID(int=self.random.getrandbits(128), version=4)

    @property
    def counters(self) -> Mapping[str, int]:
        """The operation's counters once every report has had its effect, once."""
        return counters_of(self._devices)

    @property
    def state(self) -> str:
        """The operation's state then."""
        return operation_state_of(self._devices, None)

    @property
    def _devices(self) -> list[tuple[str, bool]]:
        return [(end, True) for end in self.ends]  # all of them were dispatched on their way
