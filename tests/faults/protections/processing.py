"""Protections of reports: of those that are processed, are waiting, come twice or cannot be processed."""

from tests.faults.protections.protection import Protection

SESSION = "worker/amqp/session.py"
LOADING = "worker/processing/loading.py"

PROTECTIONS = (
    Protection(
        "acknowledgement after the commit",
        "test_worker_dies.py::test_killed_at_the_worst_moment[postgresql-before-commit]",
        (
            (
                SESSION,
                "        now = datetime.now(UTC)\n",
                "        now = datetime.now(UTC)\n        await subscription.acknowledge(deliveries)\n",
            ),
            (
                SESSION,
                "                    await subscription.acknowledge(deliveries)\n            subscription.ack",
                "                    pass\n            subscription.ack",
            ),
        ),
    ),
    Protection(
        "reports that were seen before are duplicates",
        "test_worker_dies.py::test_killed_at_the_worst_moment[postgresql-before-acknowledgement]",
        (
            (
                LOADING,
                "        accepted=known.accepted,\n        kept=known.kept,\n        discarded",
                "        kept=known.kept,\n        discarded",
            ),
            (LOADING, "        accepted=before.accepted,\n", ""),
        ),
    ),
    Protection(
        "counters change in the transaction that changes the state",
        "test_worker_dies.py::test_killed_at_the_worst_moment[postgresql-before-commit]",
        (
            (
                "worker/processing/transaction.py",
                "                await write(connection, decisions, now, actor)\n",
                "                await _write_registrations(connection, decisions)\n"
                "                await _write_dead_letters(connection, decisions, now, actor)\n"
                "                await _write_operations(connection, decisions, {}, now)\n"
                "    async with database.write() as connection:\n"
                "        await _write_operations(connection, Decisions(), decisions.counter_changes(), now)\n",
            ),
        ),
        tries=3,
    ),
    Protection(
        "parked reports of what is registered already are taken up, by the same message again or by who looks",
        "test_worker_dies.py::test_killed_between_the_portions_of_what_waits[postgresql]",
        (
            (
                LOADING,
                "keys.registering if releases_parked else ()",
                "inserted & keys.registering",
            ),
            ("worker/processing/backlog_sweeper.py", "        if registered:\n", "        if False:\n"),
        ),
    ),
    Protection(
        "an announcement that is taken in portions goes on where a death stopped it",
        "test_worker_dies.py::test_killed_between_the_portions_of_what_waits[postgresql]",
        (
            (
                "worker/processing/decider.py",
                "        if not announced.ends:\n",
                "        if not announced.ends:\n            known.new_announcements.clear()\n",
            ),
            ("worker/processing/backlog_sweeper.py", "        if registered:\n", "        if False:\n"),
        ),
    ),
    Protection(
        "what waits is taken up in portions",
        "test_much_waits.py::test_a_worker_takes_up_what_waits_for_an_announcement_in_portions[postgresql]",
        (
            ("worker/processing/backlog.py", "MAX_REPORTS = 1_000", "MAX_REPORTS = 10**9"),
            ("worker/processing/backlog.py", "MAX_BYTES = 4_000_000", "MAX_BYTES = 10**12"),
            ("worker/processing/batch_keys.py", "MAX_DEVICES = 5_000", "MAX_DEVICES = 10**9"),
        ),
    ),
    Protection(
        "what kills workers is isolated",
        "test_poison.py",
        (("worker/amqp/reading.py", ">= POISON_AFTER", ">= 10**9"),),
    ),
    Protection(
        "no acknowledgement covers suspects that wait",
        "test_poison.py",
        (
            (
                "worker/amqp/subscription.py",
                "bool(others) and not self.batcher.has_poison_candidates",
                "bool(others)",
            ),
        ),
    ),
    Protection(
        "suspects are drawn by lot",
        "test_poison.py",
        (
            (
                "worker/amqp/batching.py",
                "self._poison_candidates.pop(drawn)",
                "self._poison_candidates.pop(0)",
            ),
        ),
    ),
    Protection(
        "known ids are known to every worker",
        "test_duplicates.py",
        (
            (
                LOADING,
                "(connection, keys.reports, keys.operations - before.types.keys())\n    return Known(\n"
                "        operation_types=before",
                "(connection, (), keys.operations - before.types.keys())\n    return Known(\n"
                "        operation_types=before",
            ),
        ),
    ),
)
