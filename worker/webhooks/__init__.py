"""Webhooks: changes sent to receivers by HTTP, signed as Standard Webhooks 1.0 has it, until each is taken.

- `message`: the body of a change, and its signature; `client`: one attempt; `resolving`: addresses of names
- `schedule`: when a message is attempted again
- `dispatcher`: a worker's part, which puts the others together
- `fan_out`: reads the log of changes on, and writes what is owed to each webhook
- `sender`: leases what is due, attempts it, and writes down what came of it
- `upkeep`: which webhooks there are, limits, and what is given up
"""
