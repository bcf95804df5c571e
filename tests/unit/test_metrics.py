"""The numbers of a tally for Prometheus."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from prometheus_client import CollectorRegistry

from tests.support.sending import NOW, REPORT
from worker.model.messages import Message
from worker.model.outcomes import Tally
from worker.watch.batch_metrics import MAX_SERVICES, OTHER, BatchMetrics


def tally(*services: str) -> Tally:
    made = Tally()
    for service in services:
        made.by_service[service, "applied"] += 1
    return made


MESSAGE = Message(b"{}", NOW, type=REPORT)


async def test_services_beyond_the_first_hundred_are_counted_together() -> None:
    meter = BatchMetrics(CollectorRegistry())
    names = [f"service-{number}" for number in range(MAX_SERVICES + 2)]
    for batch in (names[:60], ["", *names[40:], names[0]]):
        with meter.measuring([MESSAGE], tally(*batch)):
            pass
    counted = {service: count for (service, _), count in meter.tally.by_service.items()}
    assert counted.pop(OTHER) == 2
    assert counted.pop("") == 1
    assert counted == {name: 2 if name == names[0] or name in names[40:60] else 1 for name in names[:MAX_SERVICES]}


async def test_where_services_are_named_only_those_are_told_apart() -> None:
    meter = BatchMetrics(CollectorRegistry(), {"drift-service": object()})
    with meter.measuring([MESSAGE], tally("drift-service", "made-up", "made-up-too")):
        pass
    assert meter.tally.by_service == {("drift-service", "applied"): 1, (OTHER, "applied"): 2}


async def test_aborts_are_counted_and_the_operations_not_kept() -> None:
    meter = BatchMetrics(CollectorRegistry())
    for number in range(3):
        made = Tally(aborts=1, aborted=[(UUID(int=number), "too many failed")])
        meter.count(made)
        assert made.aborted, "the log has them from here"
    assert (meter.tally.aborts, meter.tally.aborted) == (3, [])


@pytest.mark.parametrize(("age", "bucket"), [(0, 1), (45, 60), (-100, 1), (1e6, float("inf"))])
async def test_the_lag_is_that_of_the_first_message_and_never_negative(age: float, bucket: float) -> None:
    registry = CollectorRegistry()
    first = Message(b"{}", NOW, sent_at=datetime.now(UTC) - timedelta(seconds=age))
    with BatchMetrics(registry).measuring([first, MESSAGE], tally()):
        pass
    (lag,) = (each for each in registry.collect() if each.name == "deviceops_publish_to_commit_seconds")
    reached = [float(sample.labels["le"]) for sample in lag.samples if sample.labels and sample.value == 1]
    assert min(reached) == bucket
    assert registry.get_sample_value("deviceops_publish_to_commit_seconds_sum") == pytest.approx(
        max(age, 0), abs=2
    )


@pytest.mark.parametrize("sent_at", [datetime.fromtimestamp(0, UTC), NOW + timedelta(days=30_000)])
async def test_a_lag_that_cannot_be_true_is_not_measured(sent_at: datetime) -> None:
    registry = CollectorRegistry()
    with BatchMetrics(registry).measuring([Message(b"{}", NOW, sent_at=sent_at)], tally()):
        pass
    assert registry.get_sample_value("deviceops_publish_to_commit_seconds_count") == 0
    assert registry.get_sample_value("deviceops_batch_messages_count") == 1
