"""What the fault tests guard, and how to take it out: `python -m tests.faults.without` sees them fail then."""

from tests.faults.protections import acting, broker, database, process, processing

PROTECTIONS = (
    *processing.PROTECTIONS,
    *broker.PROTECTIONS,
    *database.PROTECTIONS,
    *process.PROTECTIONS,
    *acting.PROTECTIONS,
)
