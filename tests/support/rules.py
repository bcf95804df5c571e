"""The rules in the plainest way: tables written out by hand, and counting. It imports nothing of the product."""

STATES = [
    "CREATED",
    "INITIATED",
    "DISPATCHED",
    "PROCESSING",
    "TIMEOUT",
    "SUCCESS",
    "COMPLETED",
    "FAILURE",
    "CANCELLED",
]

SPELLINGS: dict[str, list[str | int]] = {
    "CREATED": ["CREATED", 10, "created"],
    "INITIATED": ["INITIATED", 20, "initiated"],
    "DISPATCHED": ["DISPATCHED", 30, "dispatched"],
    "PROCESSING": ["PROCESSING", 40, "processing"],
    "TIMEOUT": ["TIMEOUT", 80, "TIMED_OUT", "timeout", "timed_out"],
    "SUCCESS": ["SUCCESS", 50, "SUCCEEDED", "SUCCEDED", "success", "succeeded", "succeded"],
    "COMPLETED": ["COMPLETED", 90, "completed"],
    "FAILURE": ["FAILURE", 60, "FAILED", "failure", "failed"],
    "CANCELLED": ["CANCELLED", 70, "CANCELED", "cancelled", "canceled"],
}

# Each row is the current state; the columns are the reported states, in the order of STATES.
_VERDICTS = """
CREATED     repeated applied  applied  applied  applied  applied  applied  applied  applied
INITIATED   late     repeated applied  applied  applied  applied  applied  applied  applied
DISPATCHED  late     late     repeated applied  applied  applied  applied  applied  applied
PROCESSING  late     late     late     repeated applied  applied  applied  applied  applied
TIMEOUT     late     late     late     late     repeated applied  applied  applied  applied
SUCCESS     late     late     late     late     late     repeated applied  conflict conflict
COMPLETED   late     late     late     late     late     late     repeated conflict conflict
FAILURE     late     late     late     late     late     conflict conflict repeated conflict
CANCELLED   late     late     late     late     late     conflict conflict conflict repeated
"""

VERDICTS = {
    (line.split()[0], reported): verdict
    for line in _VERDICTS.strip().splitlines()
    for reported, verdict in zip(STATES, line.split()[1:], strict=True)
}

SETTLED = ["TIMEOUT", "SUCCESS", "COMPLETED", "FAILURE", "CANCELLED"]
FAILED = ["FAILURE", "TIMEOUT"]
SUCCEEDED = ["SUCCESS", "COMPLETED"]
DISPATCHED_WHEN_APPLIED = ["DISPATCHED", "PROCESSING", "SUCCESS", "COMPLETED"]
DISPATCHED_WHEN_LATE = ["DISPATCHED", "PROCESSING"]


def counters_of(device_operations: list[tuple[str, bool]]) -> dict[str, int]:
    """The counters, by counting (state, dispatched) one after another."""
    counters = {
        "resolved_device_count": 0,
        "dispatched_device_count": 0,
        "dispatch_failed_count": 0,
        "failed_device_count": 0,
        "success_device_count": 0,
    }
    for state, dispatched in device_operations:
        counters["resolved_device_count"] += 1
        if dispatched:
            counters["dispatched_device_count"] += 1
        if state in FAILED and not dispatched:
            counters["dispatch_failed_count"] += 1
        if state in FAILED and dispatched:
            counters["failed_device_count"] += 1
        if state in SUCCEEDED:
            counters["success_device_count"] += 1
    return counters


def operation_state_of(device_operations: list[tuple[str, bool]], expected: int | None) -> str:
    """The state of an operation, from (state, dispatched) of the registered devices."""
    counters = counters_of(device_operations)
    registered = len(device_operations)
    settled = 0
    for state, _ in device_operations:
        if state in SETTLED:
            settled += 1
    # 1.
    if registered == 0:
        if expected == 0:
            return "COMPLETED"
        return "CREATED"
    # 2.
    if settled == registered and (expected is None or registered >= expected):
        failed = counters["failed_device_count"] > 0 or counters["dispatch_failed_count"] > 0
        if counters["success_device_count"] == 0 and failed:
            return "FAILED"
        return "COMPLETED"
    # 3.
    if counters["dispatched_device_count"] > 0 or settled > 0:
        return "DISPATCHING"
    # 4.
    if expected is not None and registered < expected:
        return "RESOLVING"
    # 5.
    return "RESOLVED"
