"""Whether the deviceops of this container is alive: exit code 0 or 1. An argument names another port to ask at.

The standard library's own client, which minds no proxy, and nothing of deviceops, which takes longer to start.
"""

import os
import sys
from http import HTTPStatus
from http.client import HTTPConnection

WORKER = "DEVICEOPS_PROBE_PORT"

port = sys.argv[1] if len(sys.argv) > 1 else os.environ.get(WORKER, "8081")
connection = HTTPConnection("127.0.0.1", int(port), timeout=3)
try:
    connection.request("GET", "/livez")
    status = connection.getresponse().status
except OSError as error:
    sys.exit(f"port {port}: {error}")
sys.exit(0 if status == HTTPStatus.OK else f"port {port}: {status}")
