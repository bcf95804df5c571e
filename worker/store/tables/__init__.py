"""The tables for SQLite and PostgreSQL.

- `columns`: types of columns
- `operation`: `operations`, `operation_activity`, `announcements`, `operation_minutes`, `operation_tasks`,
  `reason_groups`
- `device_operation`: `device_operations`, `activity`
- `dead_letter`: `dead_letters`, `dead_letter_history`, `dead_letter_notes`
- `change`: `outbox`, `changes`, `change_cursors`, `webhooks`, `webhook_deliveries`
- `upkeep`: `workers`, `consumers`, `timeout_defaults`, `recounts`
- `page`: `page_keys`, `page_sessions`, `audit_log`

There are no foreign keys: the processor writes both sides of each in one transaction and nothing deletes a
referenced row; PostgreSQL would spend about 10 µs on each reference of each report.
"""

from worker.store.tables.change import change_cursors, changes, outbox, webhook_deliveries, webhooks
from worker.store.tables.columns import UtcDateTime, metadata
from worker.store.tables.dead_letter import dead_letter_history, dead_letter_notes, dead_letters
from worker.store.tables.device_operation import activity, device_operations
from worker.store.tables.operation import (
    announcements,
    operation_activity,
    operation_minutes,
    operation_tasks,
    operations,
    reason_groups,
)
from worker.store.tables.page import audit_log, page_keys, page_sessions
from worker.store.tables.upkeep import consumers, recounts, timeout_defaults, workers

__all__ = [
    "UtcDateTime",
    "activity",
    "announcements",
    "audit_log",
    "change_cursors",
    "changes",
    "consumers",
    "dead_letter_history",
    "dead_letter_notes",
    "dead_letters",
    "device_operations",
    "metadata",
    "operation_activity",
    "operation_minutes",
    "operation_tasks",
    "operations",
    "outbox",
    "page_keys",
    "page_sessions",
    "reason_groups",
    "recounts",
    "timeout_defaults",
    "webhook_deliveries",
    "webhooks",
    "workers",
]
