"""A law: a final state wins over a timeout, in whatever order reports and timeouts come."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.databases import clear, read
from tests.support.elapsing import elapse
from tests.support.rules import STATES
from tests.support.sending import (
    ANNOUNCEMENT,
    DEVICES,
    OPERATIONS,
    announcement_body,
    assert_counters_are_a_recount,
    message,
    process,
    report_body,
)
from worker.model.outcomes import Tally
from worker.processing.expiry import Expirer, all_of_them
from worker.store.database import Database

OPERATION, DEVICE = OPERATIONS[0], DEVICES[0]
BRANCHES = (["SUCCESS"], ["SUCCESS", "COMPLETED"], ["FAILURE"], ["CANCELLED"])
BEFORE = ["CREATED", "INITIATED", "DISPATCHED", "PROCESSING", "TIMEOUT"]
STEPS = st.lists(st.sampled_from([*BEFORE, None, None]), max_size=8)
"""Reports, and moments at which time passes and everything that is over is timed out (None)."""


@given(branch=st.sampled_from(BRANCHES), others=STEPS, data=st.data())
@settings(max_examples=60)
async def test_a_final_state_wins_over_a_timeout_in_every_order(
    database: Database, branch: list[str], others: list[str | None], data: st.DataObject
) -> None:
    await clear(database)
    steps = data.draw(st.permutations([*branch, *others, "announced", None]))
    tally = Tally()
    for number, step in enumerate(steps):
        if step is None:
            await elapse(database, 3_600)
            await Expirer(database, all_of_them, tally.add).act()
        elif step == "announced":
            body = announcement_body(OPERATION, [DEVICE], timeouts={"total": 60, "pending": 30, "step": 10})
            tally.add(await process(database, [[message(body, ANNOUNCEMENT)]]))
        else:
            body = report_body(OPERATION, DEVICE, step, report_id=f"report {number}")
            tally.add(await process(database, [[message(body)]]))

    stored = await read(database)
    device = stored.operations[OPERATION].devices[DEVICE]
    assert device.state == branch[-1]
    assert [state for state, _ in device.reached] == sorted(
        {state for state, _ in device.reached}, key=STATES.index
    )
    assert not stored.dead_letters
    assert tally.timeouts.total() <= 1
    await assert_counters_are_a_recount(database)
