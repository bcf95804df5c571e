"""The command that announces an operation: what is wrong with its options is named before anything is sent."""

import pytest

from tests.support.command import Deviceops


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--timeout", "step"), "'step' is not KIND=DURATION, such as step=15m"),
        (("--timeout", "step=soon"), "--timeout step: 'soon' is not a duration"),
        (("--timeout", "steps=15m"), "'steps' is none of the kinds pending, in_progress, step, total"),
        (("--deadline", "tomorrow"), "deadline: "),
        (("--abort-percent", "101"), "abort.failed_percent: "),
        (("--abort-settled", "5"), "go with --abort-percent"),
    ],
    ids=lambda value: value[1] if isinstance(value, tuple) else "",
)
def test_a_wrong_timeout_of_an_announcement_is_named_and_nothing_is_sent(
    deviceops_on_sqlite: Deviceops, options: tuple[str, ...], problem: str
) -> None:
    unreachable = deviceops_on_sqlite.with_settings(amqp_url="amqp://guest:guest@127.0.0.1:1/")
    done = unreachable.with_environment(COLUMNS="300")("announce", "CONVERGE", *options)
    assert done.returncode == 2
    assert problem in done.stderr
