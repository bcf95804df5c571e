"""The HTTP API: operations, device operations, reports, announcements, events and dead letters.

- `server`: runs uvicorn until SIGTERM
- `app`: the application and its OpenAPI document
- `middleware`: request log, request id, limits, and unhandled errors
- `forwarded`, `head_requests`, `decompression`: proxy headers, HEAD, compressed bodies
- `auth`: tokens and scopes
- `context`: dependencies shared by the endpoints
- `responses`: documents, and the shape of every error
- `pagination`, `list_filters`, `filters`: query parameters of lists; selection of dead letters
- `export`: lists as CSV or JSON lines
- `routing`: parsing of bodies, unknown parameters
- `reports`: shared by the endpoints that report a state
- `operations`, `device_operations`, `dead_letters`, `events`: the endpoints
- `stream`: what a follower of events is sent; `frames`: events as they are sent
- `feed`: reads new changes once for all followers; `recent`: those that they share; `follower`: how far one is
- `metrics`: request metrics
"""
