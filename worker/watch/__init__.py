"""What a running worker lets others see of itself, and how it ends when it is stuck.

- `health`: one answer to how it stands, for everybody who asks
- `probes`: `/livez`, `/readyz` and `/metrics` on a port of their own
- `metrics`: a worker's numbers, `process`: those of any process of ours
- `meter`: what batches were like
- `standing`: what only the database knows: reports that wait for too long, the last recount
- `supervision`: what systemd is told, and the watchdog of the event loop
"""
