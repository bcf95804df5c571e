"""Protections of what a worker does by itself, and of what it tells others."""

from tests.faults.protections.protection import Protection

SESSION = "worker/amqp/session.py"
WATERMARK = "worker/model/watermark.py"
WATERMARKS = "worker/amqp/watermarks.py"
DECISIONS = "worker/processing/decisions.py"

PROTECTIONS = (
    Protection(
        "what waits in a queue is not silence",
        "test_silence.py::test_what_has_waited_for_an_hour_is_not_silence[postgresql-0]",
        ((WATERMARKS, "return processed_until(self._rows, self._queues(), clock)", "return clock"),),
    ),
    Protection(
        "what a worker holds is not silence",
        "test_silence.py::test_what_one_worker_held_and_another_one_holds_is_not_silence",
        ((WATERMARK, "return all(row.settled_until >= look.ended for row in present)", "return True"),),
    ),
    Protection(
        "what went back into a queue when a worker was lost is not silence",
        "test_silence.py::test_what_one_worker_held_and_another_one_holds_is_not_silence",
        ((WATERMARK, "if look.began <= max(lost, default=0):", "if False:"),),
    ),
    Protection(
        "what a worker holds that says nothing more is not silence",
        "test_silence.py::test_what_a_frozen_worker_holds_is_not_silence[1]",
        (
            (WATERMARK, "if look.consumers > known_consumers(rows, clock):", "if False:"),
            (WATERMARKS, " and consumers <= known_consumers(rows, clock)", ""),
        ),
    ),
    Protection(
        "what is on its way from the broker is not silence",
        "test_silence.py::test_what_is_on_its_way_over_a_slow_link_is_not_silence",
        ((SESSION, "await subscription.channel.flow(active=True)", "await asyncio.sleep(0)"),),
    ),
    Protection(
        "after an outage, nothing is timed out at first",
        "test_silence.py::test_nothing_is_timed_out_before_the_grace_after_an_outage_of_the_broker",
        ((WATERMARKS, "if now - self._began_at < self._grace:", "if False:"),),
    ),
    Protection(
        "a device operation that is over no longer is not timed out",
        "test_timeout_races.py::test_a_device_operation_that_is_over_no_longer_is_not_timed_out",
        (
            (
                "worker/processing/decider.py",
                "if over is None or over.at > item.until or over.at != tracked.expires_at:",
                "if over is None:",
            ),
        ),
    ),
    Protection(
        "timeouts are looked at once more when the operation is locked",
        "test_timeout_races.py::test_a_registration_and_an_announcement_of_timeouts_at_the_same_time",
        (("worker/processing/transaction.py", "    if outdated:\n", "    if False:\n"),),
    ),
    Protection(
        "other timeouts hold for all that is not settled",
        "test_timeouts.py::test_other_timeouts_that_are_announced_hold_for_all_that_is_not_settled[postgresql]",
        ((DECISIONS, "if before_ != after_ and not is_created:", "if False:"),),
    ),
    Protection(
        "an abort threshold trips once",
        "test_timeouts.py::test_a_threshold_is_crossed_under_kills_and_repeated_deliveries[postgresql]",
        ((DECISIONS, "if abort is not None and tripped is None and", "if abort is not None and"),),
    ),
    Protection(
        "changes are told by the transaction that makes them true",
        "test_changes.py::test_workers_are_killed[postgresql]",
        (
            (
                "worker/processing/transaction.py",
                "    await outbox.tell(connection, list(",
                "    async with connection.engine.begin() as other:\n        await outbox.tell(other, list(",
            ),
        ),
        tries=3,
    ),
    Protection(
        "a change is kept until the broker has confirmed it",
        "test_changes.py::test_the_broker_is_killed_and_started_again",
        (
            (
                "worker/amqp/confirmed.py",
                "return await asyncio.gather(*confirmations, return_exceptions=True)",
                "return [None for _ in confirmations]",
            ),
        ),
        tries=3,
    ),
    Protection(
        "changes are numbered in the order in which they were written",
        "test_changes.py::test_workers_are_killed[postgresql]",
        (("worker/store/outbox.py", "row_number() OVER (ORDER BY position)", "row_number() OVER (ORDER BY id)"),),
    ),
    Protection(
        "a sequence is counted where the counters are",
        "test_changes.py::test_workers_are_killed[postgresql]",
        (
            (
                "worker/store/statements/operations.py",
                "sequence = operations.sequence + CAST(:told AS integer)",
                "sequence = operations.sequence + CAST(:told AS integer) * CAST(random() AS integer)",
            ),
        ),
    ),
    Protection(
        "a retry is one transaction",
        "test_retry.py::test_a_retry_that_is_killed_is_all_or_nothing[postgresql]",
        (
            (
                "worker/processing/together.py",
                "            await store.register(",
                '            await self._connection.exec_driver_sql("COMMIT")\n'
                '            await self._connection.exec_driver_sql("BEGIN")\n'
                "            await store.register(",
            ),
        ),
    ),
)
