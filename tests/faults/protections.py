"""What the fault tests guard, and how to take it out: `python -m tests.faults.without` sees them fail then."""

from dataclasses import dataclass

SUPERVISION = "worker/watch/watchdog.py"
SESSION, CONSUMER = "worker/amqp/session.py", "worker/amqp/consumer.py"
BATCHES, DATABASE, ERRORS = "worker/processing/batches.py", "worker/store/database.py", "worker/store/errors.py"
LOADING = "worker/processing/loading.py"
LINES = "worker/store/dead_connections.py"
SESSIONS = "worker/store/sessions.py"
SUBSCRIPTION = "worker/amqp/subscription.py"

TOPOLOGY = "worker/amqp/topology.py"
WATERMARK, WATERMARKS = "worker/model/watermark.py", "worker/amqp/watermarks.py"
DECISIONS = "worker/processing/decisions.py"


@dataclass(frozen=True)
class Protection:
    """A protection, the test that guards it, and the edits of the source that take it out: (file, old, new)."""

    name: str
    test: str
    edits: tuple[tuple[str, str, str], ...]
    tries: int = 1
    """How often the test tries its fault, where one try may miss the moment."""


NO_RETRY = "test_readiness.py::test_what_no_retry_will_mend_ends_life_after_life_without_a_delivery"
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
        "a deadline for the batch at work when told to stop",
        "test_draining.py::test_a_batch_that_cannot_commit_in_time_is_given_back",
        ((SESSION, "return drain - min(CLOSE_RESERVE, drain / 2)", "return 3_600"),),
    ),
    Protection(
        "a stop waits for the batch at work",
        "test_draining.py::test_stopped_under_load_it_acknowledges_what_it_committed[postgresql]",
        ((SESSION, "return drain - min(CLOSE_RESERVE, drain / 2)", "return 0"),),
        tries=3,
    ),
    Protection(
        "a consumer that the broker forgot is noticed",
        "test_loop_hangs.py::test_the_broker_forgets_the_consumer",
        ((SESSION, "if not found.consumer_count and not subscription.is_released:", "if False:"),),
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
        "nothing moves: the process ends",
        "test_loop_hangs.py::test_deaf",
        ((SESSION, "elif loop.time() - changed_at >= stall:", "elif False:"),),
    ),
    Protection(
        "the loop hangs: the process ends",
        "test_loop_hangs.py::test_for_longer_than_anybody_waits",
        (
            (
                SUPERVISION,
                "faulthandler.dump_traceback_later(seconds, exit=True, file=self._stderr)",
                "faulthandler.dump_traceback_later(seconds, file=self._stderr)",
            ),
            (SUPERVISION, "        os._exit(1)\n", "        return\n"),
        ),
    ),
    Protection(
        "a loop that hung beyond the heartbeat connects again",
        "test_loop_hangs.py::test_for_longer_than_the_heartbeat",
        ((CONSUMER, "if isinstance(error, BrokerLost) or self._was_connected:", "if False:"),),
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
    Protection(
        "durations are measured by the monotonic clock",
        "test_clock_jumps.py",
        (
            ("worker/dependency.py", "default_factory=time.monotonic", "default_factory=time.time"),
            ("worker/dependency.py", "self._since = time.monotonic()", "self._since = time.time()"),
            (
                "worker/dependency.py",
                "round(time.monotonic() - self._since, 1)",
                "round(time.time() - self._since, 1)",
            ),
        ),
    ),
    Protection(
        "a transaction without an answer is given up",
        "test_postgresql_fails.py::test_frozen_for_longer_than_the_timeout",
        ((BATCHES, "database.answer_timeout * 2**doublings)", "3_600)"),),
    ),
    Protection(
        "a database that is away at the start is waited for",
        "test_postgresql_fails.py::test_away_already_when_the_worker_starts",
        (
            (
                "worker/service.py",
                "await retry_transient(self._store, until_idle, _try_out, self._store)",
                "await _try_out(self._store)",
            ),
        ),
    ),
    Protection(
        "messages that were held for long go back",
        "test_postgresql_slow.py::test_messages_held_for_too_long_go_back_until_the_database_answers",
        ((SESSION, "return_when=asyncio.FIRST_COMPLETED, timeout=hold)", "return_when=asyncio.FIRST_COMPLETED)"),),
    ),
    Protection(
        "nothing is consumed until a batch was written",
        f"{NO_RETRY}[sqlite-without_a_column-reason]",
        ((CONSUMER, "            await self._ready()\n", ""),),
    ),
    Protection(
        "what is ready has written, not read",
        f"{NO_RETRY}[postgresql-without_a_right-permission denied for table de]",
        (("worker/service.py", "    await probe_write(store)\n", ""),),
    ),
    Protection(
        "a refusal is caused by data only if a probe is accepted",
        f'{NO_RETRY}[postgresql-refusing_everything-violates check constraint "never"]',
        ((BATCHES, "        if not is_probed:\n", "        if False:\n"),),
    ),
    Protection(
        "a probe ends with a commit",
        "test_readiness.py::test_a_commit_that_does_not_end_is_none",
        (
            (
                "worker/processing/write_probe.py",
                "await connection.execute(text(statement))",
                "await connection.rollback()",
            ),
        ),
    ),
    Protection(
        "what went back is acknowledged before more is consumed",
        "test_readiness.py::test_a_disk_that_has_room_for_a_small_batch_only_costs_one_delivery",
        ((SESSION, "                self.unfinished.append(processing)\n", ""),),
    ),
    Protection(
        "a slow database holds reports back at the broker",
        "test_postgresql_slow.py::test_slow_database_holds_reports_back",
        (
            (
                SUBSCRIPTION,
                "channel.basic_qos(prefetch_count=prefetch)",
                "asyncio.sleep(0)",
            ),
        ),
    ),
    Protection(
        "transactions on dead lines are ended on the next one",
        "test_postgresql_link.py::test_statement_whose_line_died_keeps_no_locks_once_it_is_tried_again",
        (
            (
                LINES,
                "            cursor.execute(*backend.termination(time.monotonic() - given_up))\n",
                "",
            ),
        ),
    ),
    Protection(
        "a batch's statement on a dead line is given up at once",
        "test_postgresql_link.py::test_statement_of_a_batch_whose_line_died_is_given_up_at_once",
        (("worker/store/bulk.py", "        await connection.invalidate(error)", "        del error"),),
    ),
    Protection(
        "PostgreSQL ends transactions of which it hears nothing",
        "test_postgresql_link.py::test_who_vanished_with_the_line_keeps_no_locks",
        (
            (
                "worker/store/postgresql.py",
                '"idle_in_transaction_session_timeout": idle_timeout',
                '"idle_in_transaction_session_timeout": None',
            ),
        ),
    ),
    Protection(
        "connections are doubted together",
        "test_postgresql_link.py::test_forgotten_connections_cost_one_timeout_together",
        ((LINES, 'elif record.info["since"] < state.invalidated_at:', "elif False:"),),
    ),
    Protection(
        "a database that went away is waited for",
        "test_postgresql_fails.py::test_away_for_a_while",
        (
            (ERRORS, "| asyncpg.InternalClientError | OSError)", "| asyncpg.InternalClientError)"),
            (
                ERRORS,
                "    if isinstance(error, DBAPIError) and error.connection_invalidated:\n        return True\n",
                "",
            ),
        ),
    ),
    Protection(
        "a transaction whose connection was lost is tried again",
        "test_postgresql_link.py::test_cut_at_random",
        (
            (
                ERRORS,
                "    if isinstance(error, DBAPIError) and error.connection_invalidated:\n        return True\n",
                "",
            ),
            (
                ERRORS,
                "return isinstance(cause, asyncpg.InterfaceError | asyncpg.InternalClientError | OSError)",
                "return False",
            ),
            (ERRORS, '("08", "25",', '("25",'),
        ),
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
        "too many connections: waited out",
        "test_postgresql_refuses.py::test_out_of_connections",
        ((ERRORS, '"40", "53", "55"', '"40", "55"'),),
    ),
    Protection(
        "a full disk under PostgreSQL: waited out",
        "test_postgresql_disk_full.py",
        ((ERRORS, '"40", "53", "55"', '"40", "55"'),),
    ),
    Protection(
        "deadlocks and serialization failures: tried again",
        "test_postgresql_refuses.py",
        ((ERRORS, '"25", "40", "53"', '"25", "53"'),),
    ),
    Protection(
        "a full disk under SQLite: waited out",
        "test_sqlite_fails.py::test_disk_full",
        ((ERRORS, "    sqlite3.SQLITE_FULL,\n", ""),),
    ),
    Protection(
        "a locked SQLite file: waited out",
        "test_sqlite_fails.py::test_locked_by_another_process",
        ((ERRORS, "    sqlite3.SQLITE_BUSY,\n", ""),),
    ),
    Protection(
        "the HTTP API does not hang with its database",
        "test_api_survives.py",
        (
            (
                DATABASE,
                "time_limit(self._limit), self.engine.connect() as connection:\n                if is_batch",
                "self.engine.connect() as connection:\n                if is_batch",
            ),
            (
                DATABASE,
                "time_limit(self._limit), self.engine.connect() as connection:\n                with",
                "self.engine.connect() as connection:\n                with",
            ),
        ),
    ),
    Protection(
        "sessions that can only read are let go",
        "test_postgresql_sessions.py::test_a_worker_lets_go_of_sessions_that_began_in_a_bad_time[read-only]",
        ((DATABASE, "                self._state.invalidate()\n", "                pass\n"),),
    ),
    Protection(
        "sessions that the server has closed are not used",
        "test_postgresql_sessions.py::test_the_api_is_not_held_up_by_sessions_that_the_server_closes_when_they_are_idle",
        ((LINES, "elif is_closed(connection):", "elif False:"),),
    ),
    Protection(
        "a database that was there is waited for",
        "test_postgresql_sessions.py::test_a_database_that_was_there_is_waited_for_and_what_for_is_said[renamed]",
        ((LINES, "return is_missing(error)", "return False"),),
    ),
    Protection(
        "secrets are read for each connection",
        "test_secrets_rotate.py::test_a_password_that_changes_is_read_anew",
        (
            (DATABASE, "fresh = settings.with_database_login()", "fresh = settings"),
            ("worker/amqp/connection.py", "fresh = settings.with_broker_login()", "fresh = settings"),
        ),
    ),
    Protection(
        "a refusal that lasts ends the process",
        "test_secrets_rotate.py::test_a_password_that_stays_wrong_ends_the_worker_with_one_line",
        (
            (LINES, "return now - self._refused_since < self._refusal_timeout", "return True"),
            (CONSUMER, "return now - self._refused_since >= self._settings.refusal_timeout", "return False"),
        ),
    ),
    Protection(
        "sessions set what a pooler refuses at their start",
        "test_pooler.py::test_settings_hold_in_every_transaction_and_reach_nobody_else",
        (
            (
                SESSIONS,
                'server_settings={"application_name": target.application_name}',
                'server_settings={"application_name": target.application_name, **settings}',
            ),
        ),
    ),
    Protection(
        "behind a pooler, settings are made in each transaction",
        "test_pooler.py::test_settings_hold_in_every_transaction_and_reach_nobody_else",
        ((SESSIONS, "self.is_pooled = pid != self.get_server_pid()", "self.is_pooled = False"),),
    ),
    Protection(
        "statements have no names that a pooler does not keep track of",
        "test_pooler.py::test_statements_are_prepared_once_only_where_the_pooler_keeps_track_of_them",
        ((SESSIONS, "self.names_statements = await self._renames_statements()", "self.names_statements = True"),),
    ),
    Protection(
        "behind a pooler, the transaction of a lost connection is ended on the next one",
        "test_pooler.py::test_the_transaction_of_a_lost_connection_is_ended_by_the_next_one",
        ((SESSIONS, "return _END_POOLED, (_LOCKS, self.lock)", 'return "SELECT 1", ()'),),
    ),
    Protection(
        "a backend that a pooler lends to others is not ended",
        "test_pooler.py::test_the_backend_of_a_lost_connection_is_not_ended_under_the_next_client",
        (
            (SESSIONS, "self.backend = Backend(lock=lock)", "self.backend = Backend(pid, started)"),
            (
                SESSIONS,
                "xact_start < clock_timestamp() - make_interval(secs => $3)",
                "make_interval(secs => $3) > '0'",
            ),
        ),
    ),
    Protection(
        "an SQLite file that was removed gets no commit",
        "test_sqlite_fails.py::test_files_that_are_removed_take_no_report_with_them",
        (("worker/store/sqlite.py", "        if not is_same:\n", "        if False:\n"),),
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
        "descriptors that are closed are opened first",
        "test_streams.py::test_a_closed_descriptor_costs_nothing",
        (("worker/__main__.py", "    open_closed_descriptors()\n    gc", "    gc"),),
    ),
    Protection(
        "the log is written by a thread",
        "test_streams.py::test_a_log_that_nothing_reads_stops_no_worker[sqlite]",
        (
            (
                "worker/cli/log_format.py",
                "            writer.write(line)\n",
                "            os.write(2, line.encode())\n",
            ),
        ),
    ),
    Protection(
        "the end of a command waits for its last line for so long only",
        "test_streams.py::test_a_command_that_fails_ends_whatever_becomes_of_its_last_line[full_pipe]",
        (("worker/log_writer.py", "                self._stuck_at = self._done\n", "                pass\n"),),
    ),
    Protection(
        "a worker that hangs ends although its stack cannot be written",
        "test_streams.py::test_a_worker_that_hangs_ends_although_nothing_reads_where",
        (
            (SUPERVISION, "self._stderr = _non_blocking(2)", "self._stderr = 2"),
            (SUPERVISION, "        os._exit(1)\n", "        return\n"),
        ),
    ),
    Protection(
        "a second signal ends the process at once",
        "test_draining.py::test_a_second_signal_ends_it_at_once",
        (("worker/cli/run.py", "            loop.remove_signal_handler(number)\n", "            continue\n"),),
    ),
    Protection(
        "a database of another encoding is refused",
        "test_other_databases.py::test_an_encoding_that_cannot_keep_every_text_is_refused",
        (("worker/store/schema.py", 'if found.encoding != "UTF8":', "if False:"),),
    ),
    Protection(
        "another program's schema is refused",
        "test_other_databases.py::test_another_programs_versions_are_not_taken_for_ours",
        (
            (
                "worker/store/schema.py",
                "if missing and (not is_newer or missing == _OF_EVERY_VERSION):",
                "if False:",
            ),
        ),
    ),
    Protection(
        "another program's tables get none of ours beside them",
        "test_other_databases.py::test_another_programs_tables_get_none_of_ours_beside_them",
        (("worker/store/schema.py", "if strangers := found.here - {_VERSION}:", "if strangers := set():"),),
    ),
    Protection(
        "keys of text are compared by their bytes",
        "test_other_databases.py::test_ids_are_known_again_when_the_order_of_a_language_changes",
        (("worker/store/migrations/versions/0007_keys_by_bytes.py", ' TYPE text COLLATE "C"', " TYPE text"),),
    ),
    Protection(
        "what changes nothing waits for standbys as well",
        "test_postgresql_pair.py::test_nothing_is_acknowledged_that_only_a_lost_primary_had",
        (("worker/processing/transaction.py", "if not keys.claims:  # oth", "if keys.claims is None:  # oth"),),
    ),
    Protection(
        "every server that the database's URL names is tried",
        "test_postgresql_pair.py::test_the_primary_is_killed_and_the_standby_promoted",
        (("worker/store/sessions.py", "known_failures.last(target.servers)", "target.servers[:1]"),),
    ),
    Protection(
        "every node that the broker's URL names is tried",
        "test_broker_cluster.py::test_the_node_that_leads_the_queue_is_killed[with the worker's connection]",
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
        "the wait for the lock of batches is bounded",
        "test_batch_lock.py::test_a_lock_that_is_never_released_blocks_for_seconds_only",
        (("worker/store/batch_lock.py", "SET LOCAL lock_timeout = {self._timeout * 1_000:.0f};", ""),),
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
    Protection(
        "what waits in a queue is not silence",
        "test_timeouts.py::test_what_has_waited_for_an_hour_is_not_silence[postgresql-0]",
        ((WATERMARKS, "return processed_until(self._rows, self._queues(), clock)", "return clock"),),
    ),
    Protection(
        "what a worker holds is not silence",
        "test_timeouts.py::test_what_one_worker_held_and_another_one_holds_is_not_silence",
        ((WATERMARK, "return all(row.settled_until >= look.ended for row in present)", "return True"),),
    ),
    Protection(
        "what went back into a queue when a worker was lost is not silence",
        "test_timeouts.py::test_what_one_worker_held_and_another_one_holds_is_not_silence",
        ((WATERMARK, "if look.began <= max(lost, default=0):", "if False:"),),
    ),
    Protection(
        "what a worker holds that says nothing more is not silence",
        "test_timeouts.py::test_what_a_frozen_worker_holds_is_not_silence[1]",
        (
            (WATERMARK, "if look.consumers > known_consumers(rows, clock):", "if False:"),
            (WATERMARKS, " and consumers <= known_consumers(rows, clock)", ""),
        ),
    ),
    Protection(
        "what is on its way from the broker is not silence",
        "test_timeouts.py::test_what_is_on_its_way_over_a_slow_link_is_not_silence",
        ((SESSION, "await subscription.channel.flow(active=True)", "await asyncio.sleep(0)"),),
    ),
    Protection(
        "after an outage, nothing is timed out at first",
        "test_timeouts.py::test_nothing_is_timed_out_before_the_grace_after_an_outage_of_the_broker",
        ((WATERMARKS, "if now - self._began_at < self._grace:", "if False:"),),
    ),
    Protection(
        "a device operation that is over no longer is not timed out",
        "test_timeouts.py::test_a_device_operation_that_is_over_no_longer_is_not_timed_out",
        (("worker/processing/decider.py", "if over is None or over.at > item.until:", "if over is None:"),),
    ),
    Protection(
        "timeouts are looked at once more when the operation is locked",
        "test_timeouts.py::test_a_registration_and_an_announcement_of_timeouts_at_the_same_time",
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
)
