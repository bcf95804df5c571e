"""The HTTP API: what the fleet's state is, reports and announcements, dead letters.

- `serving`: listens, until it is told to stop
- `app`: all of it put together, and its OpenAPI document
- `edge`: what every request passes first: the log, the id, and what nobody else has caught
- `access`: who calls, and what they may do
- `context`: what the calls share
- `answers`: what calls answer, good or bad, and the one shape of every error
- `windows`: the parameters of pages, and pages with the addresses of their neighbours
- `routing`: how calls are found and their bodies read
- `reporting`: what the calls share that report something
- `selecting`: which dead letters are meant
- `operations`, `device_operations`, `dead_letters`, `events`: the calls
- `metrics`: its numbers
- `changes`: tells `events` what has changed
"""
