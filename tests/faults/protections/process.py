"""Protections of the process: its end, its event loop, its clock and its streams."""

from tests.faults.protections.protection import Protection

SUPERVISION = "worker/watch/watchdog.py"
SESSION = "worker/amqp/session.py"
CONSUMER = "worker/amqp/consumer.py"

PROTECTIONS = (
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
)
