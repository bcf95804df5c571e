"""Monitoring of a running process, and the watchdog that ends a hung one.

- `health`: readiness, one source for probes, systemd and metrics
- `probes`: `/livez`, `/readyz` and `/metrics` on a port of their own
- `metrics`: a worker's metrics; `process_metrics`: those of any process
- `batch_metrics`: one observation per batch
- `database_metrics`: parked reports, open dead letters and the last recount, queried periodically
- `webhook_metrics`: deliveries, and what is owed
- `rejection_log`: dead letters and contradicting duplicates in the log, rate-limited
- `watchdog`: systemd notifications, and the exit of a hung process
"""
