"""Whatever dies: nothing lost, nothing twice. Tests that kill real processes, servers and connections.

A test puts a fault into a stream of reports, lifts it, and holds what the broker confirmed against what the
database has: `endure` in `trials.py` is what they have in common.

| file | holds |
|---|---|
| `fleet.py` | reports about one operation, shuffled, and what must come of them |
| `ledger.py` | publishing until the broker confirms, and the comparison with the database |
| `workers.py` | workers under a supervisor, as separate processes |
| `lives.py` | that supervisor: it forks the next life as soon as one has ended |
| `sabotage.py` | the places in a worker at which a test can have it die or hang |
| `scene.py` | a worker between a broker and a database, and its ledger |
| `locking.py` | a database in which batches wait |
| `trials.py` | one fault, tried many times; what came of it goes into the table at the end of a run |
| `outages.py` | what a worker says of its database, and sessions of others on it |
| `disks.py` | a small disk that is filled |
| `protections` | what the tests guard, and how to take each out |
| `without.py` | takes them out, and sees the tests fail: PROTECTIONS.md is what it prints |
"""
