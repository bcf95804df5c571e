"""Which webhooks there are, how much is owed to each, and what of it is given up."""

import time
from collections import Counter
from collections.abc import Mapping

import structlog

from worker.config.webhooks import Webhook
from worker.store import webhook_deliveries, webhooks
from worker.store.database import Database
from worker.store.webhook_deliveries import Owed
from worker.store.webhooks import WebhookState
from worker.webhooks.answer import Outcome
from worker.webhooks.schedule import OLDEST

INTERVAL = 10
"""Seconds."""
FORGOTTEN_AFTER = 86_400_000
"""Milliseconds after which a webhook is removed that is in no worker's settings any more."""
PORTION = 5_000
"""Deliveries that are removed in one transaction."""

_log = structlog.get_logger()


class Upkeep:
    """Done by each worker that runs, also one without webhooks: what earlier ones have left is removed."""

    def __init__(
        self,
        database: Database,
        own: Mapping[str, Webhook],
        limit: int,
        outcomes: Counter[tuple[str, str]],
    ) -> None:
        self._database = database
        self._types = {name: " ".join(sorted(webhook.sent)) for name, webhook in own.items()}
        self._limit = limit
        self._outcomes = outcomes
        self._done_at: float | None = None
        self.owed: Mapping[str, Owed] = {}
        """What is owed to each webhook, as it was at the last look."""
        self.states: Mapping[str, WebhookState] = {}
        """How each did then."""

    async def turn(self) -> None:
        """Do what is due. Raises the database's errors."""
        now = time.monotonic()
        if self._done_at is not None and now - self._done_at < INTERVAL:
            return
        if self._types:
            async with self._database.write(is_counted=False) as connection:
                await webhooks.register(connection, self._types, replaces=self._done_at is None)
        self._done_at = now
        await self.look()
        if self.states.keys() - self._types:
            async with self._database.write(is_counted=False) as connection:
                forgotten = await webhooks.forget(connection, FORGOTTEN_AFTER)
            if forgotten:
                _log.info("webhooks that are in no settings removed", webhooks=list(forgotten))
        for name, state in self.states.items():
            await self._bound(name, state)

    async def look(self) -> None:
        """See how the webhooks do."""
        async with self._database.read() as connection:
            self.owed = await webhook_deliveries.owed(connection)
            self.states = {state.name: state for state in await webhooks.states(connection)}

    async def _bound(self, name: str, state: WebhookState) -> None:
        """Remove what is owed to a webhook beyond the limits."""
        owed = self.owed.get(name, Owed(0, 0))
        if owed.age > OLDEST and (state.failures or state.off_at is not None):
            number = PORTION
            total = 0
            while number == PORTION:
                async with self._database.write(is_counted=False) as connection:
                    number = await webhook_deliveries.give_up(connection, name, OLDEST, PORTION)
                total += number
            self._note(name, Outcome.GIVEN_UP, total)
        removed = PORTION if owed.number > self._limit else 0
        while removed == PORTION:
            async with self._database.write(is_counted=False) as connection:
                removed = await webhook_deliveries.drop(connection, name, self._limit, PORTION)
            self._note(name, Outcome.DROPPED, removed)

    def _note(self, name: str, outcome: Outcome, number: int) -> None:
        if not number:
            return
        self._outcomes[name, outcome] += number
        what = "given up: too old" if outcome is Outcome.GIVEN_UP else "dropped: too many"
        _log.warning(f"webhook: messages {what}", webhook=name, messages=number)
