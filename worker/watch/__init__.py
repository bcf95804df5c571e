"""What a running worker lets others see of itself, and how it ends when it is stuck.

- `health`: one answer to how it stands, for everybody who asks
- `probes`: `/livez`, `/readyz` and `/metrics` on a port of their own
- `metrics`: the numbers
- `supervision`: what systemd is told, and the watchdog of the event loop
"""
