"""Protections against the broker and the network."""

from tests.faults.protections.protection import Protection

SESSION = "worker/amqp/session.py"
CONSUMER = "worker/amqp/consumer.py"
TOPOLOGY = "worker/amqp/topology.py"
NEVER_INSPECTING = (
    SESSION,
    "await asyncio.sleep(min(INSPECTION_INTERVAL, stall / 4))",
    "await asyncio.sleep(3_600)",
)
NOT_HELD = (
    TOPOLOGY,
    '                "x-dead-letter-exchange": self.dead_letters,\n'
    '                "x-dead-letter-strategy": "at-least-once",\n'
    "            },\n        )\n        await queue.bind(",
    "            },\n        )\n        await queue.bind(",
)

PROTECTIONS = (
    Protection(
        "a lost broker is connected to again",
        "test_broker_fails.py::test_the_broker_closes_every_connection",
        ((CONSUMER, "if isinstance(error, BrokerLost) or self._was_connected:", "if False:"),),
    ),
    Protection(
        "a broker that is away at the start is waited for",
        "test_broker_fails.py::test_the_broker_is_away_when_the_worker_starts",
        ((CONSUMER, "and not is_time_up", "and False"),),
    ),
    Protection(
        "one line in the log for each change, not for each try",
        "test_broker_fails.py::test_the_broker_is_killed_and_started_again",
        (("worker/dependency.py", "if not self._is_down_logged:", "if True:"),),
    ),
    Protection(
        "the end of a session is noted while a batch waits",
        "test_broker_fails.py::test_the_broker_closes_the_channel_of_a_worker_that_does_not_acknowledge",
        (
            (SESSION, "closing.add_done_callback(partial(self._note_closing, subscription))", "closing.done()"),
            NEVER_INSPECTING,
        ),
    ),
    Protection(
        "a consumer that the broker cancelled is noticed",
        "test_broker_fails.py::test_the_queue_is_deleted_under_the_worker",
        (
            (SESSION, "elif subscription.is_cancelled:", "elif False:"),
            NEVER_INSPECTING,
        ),
    ),
    Protection(
        "the connection that consumes never publishes",
        "test_broker_fails.py::test_an_alarm_of_the_broker_stops_publishers_and_no_worker[memory]",
        (
            (
                SESSION,
                "                self._inspector = inspector\n",
                "                self._inspector = inspector\n"
                "                await inspector.basic_publish(b'', exchange=topology.dead_letters)\n",
            ),
        ),
    ),
    Protection(
        "a broker that does not answer is noticed by asking",
        "test_network_fails.py::test_a_half_open_link_is_noticed_by_a_look_at_the_queues",
        ((SESSION, "waiting = await self._messages_waiting()", "waiting = 0"),),
    ),
    Protection(
        "a bound for goodbyes to the broker",
        "test_network_fails.py::test_told_to_stop_in_a_black_hole",
        ((SESSION, "asyncio.timeout(CLOSE_RESERVE)", "asyncio.timeout(None)"),),
    ),
    Protection(
        "a link that is merely slow counts as no loss",
        "test_network_fails.py::test_slow",
        (
            (
                SESSION,
                "self._reply_timeout = min(REPLY_TIMEOUT, settings.stall_timeout / 4)",
                "self._reply_timeout = 0.001",
            ),
        ),
    ),
    Protection(
        "a lost link is connected to again",
        "test_network_fails.py::test_cut_at_any_moment",
        ((CONSUMER, "if isinstance(error, BrokerLost) or self._was_connected:", "if False:"),),
    ),
    Protection(
        "dead letters at the broker have a generous limit of their own",
        "test_broker_defaults.py::test_dead_letters_that_are_delivered_again_and_again_stay[4.0]",
        ((TOPOLOGY, "DEAD_LETTER_LIMIT = 1_000_000", "DEAD_LETTER_LIMIT = 20"), NOT_HELD),
    ),
    Protection(
        "the queue of dead letters refuses what is beyond a limit",
        "test_broker_defaults.py::test_beyond_a_length_reports_are_refused_and_none_that_was_confirmed_is_dropped",
        (
            (
                TOPOLOGY,
                '                "x-overflow": "reject-publish",\n                # To itself',
                "                # To itself",
            ),
            NOT_HELD,
        ),
    ),
    Protection(
        "what leaves the queue of dead letters leads back to it",
        "test_broker_defaults.py::test_what_a_policy_takes_from_both_queues_is_held_and_can_be_had_again",
        (NOT_HELD,),
    ),
    Protection(
        "queues are kept in use while nothing is consumed",
        "test_broker_defaults.py::test_queues_that_would_expire_are_kept_in_use_while_the_database_is_away[3.10]",
        (
            (
                CONSUMER,
                "create_task(Keepalive(self._settings, self._supported_topology, self._note).run())",
                "create_task(asyncio.sleep(0))",
            ),
        ),
    ),
    Protection(
        "a queue of an older version is consumed as long as it exists",
        "test_broker_defaults.py::test_a_queue_of_an_older_version_is_replaced_without_loss_whenever_a_worker_dies",
        ((TOPOLOGY, "DeclaredState([current, former], ", "DeclaredState([current], "),),
    ),
    Protection(
        "a queue of an older version is replaced by another one",
        "test_broker_defaults.py::test_a_queue_of_an_older_version_is_replaced_without_loss_whenever_a_worker_dies",
        ((TOPOLOGY, "if await self._is_of_older_version(connection):", "if False:"),),
    ),
    Protection(
        "every node that the broker's URL names is tried",
        "test_broker_cluster.py::test_the_node_that_leads_the_queue_is_killed",
        (
            (
                "worker/amqp/connection.py",
                "in failures.last(random.sample(fresh.brokers, len(fresh.brokers)))",
                "in fresh.brokers[:1]",
            ),
        ),
    ),
    Protection(
        "a node that failed is tried after the others",
        "test_network_fails.py::test_a_node_that_failed_is_tried_after_the_others",
        (("worker/amqp/connection.py", "failures.note(node)\n            found", "found"),),
    ),
    Protection(
        "a worker that does not announce itself counts as gone",
        "test_partitions.py::test_a_worker_dies_and_comes_back",
        (("worker/store/workers.py", "GONE_AFTER = timedelta(seconds=5)", "GONE_AFTER = timedelta(hours=6)"),),
    ),
    Protection(
        "queues that others declared are consumed, also when these are gone",
        "test_partitions.py::test_workers_of_different_numbers_run_side_by_side",
        (("worker/amqp/partitions.py", "        self._known |= self._wanted\n", ""),),
    ),
    Protection(
        "queues from before a change of the partitions are consumed",
        "test_partitions.py::test_the_number_of_partitions_changes",
        (("worker/amqp/partitions.py", "        self._known.update(former)\n", ""),),
    ),
    Protection(
        "where the broker has no plugin for partitions, one queue is used",
        "test_partitions.py::test_a_broker_without_the_plugin_has_one_queue",
        (("worker/amqp/consumer.py", "                return replace(topology, partitions=1)\n", ""),),
    ),
)
