"""Metrics of webhooks: what came of deliveries, and what is owed to each."""

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from worker.webhooks.answer import Outcome
from worker.webhooks.dispatcher import Dispatcher


@dataclass(frozen=True, slots=True, eq=False)
class WebhookMetrics(Collector):
    """Computed at the scrape; what is owed is from the last look, ten seconds ago at most."""

    dispatcher: Dispatcher

    def collect(self) -> Iterator[Metric]:
        """The current values."""
        deliveries = CounterMetricFamily(
            "deviceops_webhook_deliveries",
            "Messages delivered, attempts failed, messages given up and dropped, by this worker.",
            labels=["webhook", "outcome"],
        )
        owed = GaugeMetricFamily(
            "deviceops_webhook_owed", "Messages that are owed to the webhook.", labels=["webhook"]
        )
        oldest = GaugeMetricFamily(
            "deviceops_webhook_oldest_owed_seconds",
            "Age of the oldest of them; 0 if nothing is owed.",
            labels=["webhook"],
        )
        off = GaugeMetricFamily(
            "deviceops_webhook_off", "Whether the receiver has switched the webhook off.", labels=["webhook"]
        )
        upkeep = self.dispatcher.upkeep
        for name in self.dispatcher.names:
            for outcome in Outcome:
                deliveries.add_metric([name, outcome], self.dispatcher.outcomes[name, outcome])
            if (state := upkeep.states.get(name)) is None:  # before the first look
                continue
            off.add_metric([name], float(state.off_at is not None))
            found = upkeep.owed.get(name)
            owed.add_metric([name], 0 if found is None else found.number)
            oldest.add_metric([name], 0 if found is None else found.age / 1_000)
        yield from (deliveries, owed, oldest, off)
