"""Timeouts and abort thresholds agree with the independent model, while minutes pass between random batches."""

import pytest

from tests.support.agreement import check_group
from tests.support.databases import clear
from worker.processing import expiry
from worker.store.database import Database

GROUPS, GROUPS_IN_FULL = 10, 30


async def test_timeouts_and_thresholds_agree_with_the_model_on_thousands_of_random_streams(
    database: Database, full: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "PORTION", 10_000)  # as the model does it: all in one transaction
    monkeypatch.setattr(expiry, "TASKS", 10_000)
    for seed in range(GROUPS_IN_FULL if full else GROUPS):
        await clear(database)
        await check_group(database, seed, passes_time=True)
