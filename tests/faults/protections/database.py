"""Protections against the database, and against a server that others use as well."""

from tests.faults.protections.protection import Protection

SESSION = "worker/amqp/session.py"
CONSUMER = "worker/amqp/consumer.py"
BATCHES = "worker/processing/batches.py"
DATABASE = "worker/store/database.py"
ERRORS = "worker/store/errors.py"
LINES = "worker/store/dead_connections.py"
SESSIONS = "worker/store/sessions.py"
SUBSCRIPTION = "worker/amqp/subscription.py"
NO_RETRY = "test_readiness.py::test_what_no_retry_will_mend_ends_life_after_life_without_a_delivery"

PROTECTIONS = (
    Protection(
        "a transaction without an answer is given up",
        "test_postgresql_fails.py::test_frozen_for_longer_than_the_timeout",
        ((BATCHES, "database.answer_timeout * 2**doublings)", "3_600)"),),
    ),
    Protection(
        "a rollback without an answer is given up",
        "test_postgresql_link.py::test_the_end_of_a_read_whose_line_died_is_given_up",
        ((SESSIONS, "if query == _ROLLBACK:", "if False:"),),
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
                "time_limit(limit), self.engine.connect() as connection:\n                with",
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
        "a connection to SQLite whose closing was cancelled ends",
        "test_sqlite_fails.py::test_a_transaction_that_is_cancelled_twice_leaves_no_task_that_never_ends",
        (("worker/store/sqlite.py", "        driver.stop = cache(driver.stop)\n", ""),),
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
        "the wait for the lock of batches is bounded",
        "test_batch_lock.py::test_a_lock_that_is_never_released_blocks_for_seconds_only",
        (("worker/store/batch_lock.py", "SET LOCAL lock_timeout = {self._timeout * 1_000:.0f};", ""),),
    ),
)
