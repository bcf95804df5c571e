"""How fast deviceops is, beside what else people would use, on a real RabbitMQ and a real PostgreSQL.

`python -m tests.benchmarks [NAME] [--json FILE] [--chart FILE]` needs the extra `bench` (`dev` has it).

| file | holds |
|---|---|
| `throughput.py` | reports a second of seven consumers, in turn, and the ratios that have targets |
| `latency.py` | from publishing to being visible, at offered rates |
| `growth.py` | the same with a million device operations already there; reading; bytes per report |
| `memory.py` | resident memory over a long backlog |
| `cost.py` | processor time by part, from a profiler |
| `replicas.py` | rates with a cluster of brokers, and with a standby that commits wait for |
| `timeouts.py` | how soon what is over becomes TIMEOUT, and what that does to reports |
| `filters.py` | pages by filter, of a thousand device operations and of a million; exports |
| `stage.py`, `broker.py` | services, databases and queues of a run's own; filling a queue |
| `traffic.py` | the messages, and what must have become of them |
| `consuming.py`, `checking.py` | running a consumer over a backlog, its rate, and whether it did everything |
| `consumers/` | those that deviceops is measured beside |
| `sizes.py`, `tables.py`, `chart.py` | how much is done, and how it is shown |

Absolute figures are noise on a shared machine; ratios of one run, with rounds in turn, are what to compare.
"""
