"""deviceops in containers: `deploy/container/` and `deploy/kubernetes/`, held against schemas and the code.

| file | holds |
|---|---|
| `files.py` | what those folders say, as their own tools read it |
| `restricted.py` | Kubernetes' "restricted" Pod Security Standard |
| `podman.py` | an engine of the test's own, for `--full`: builds the image, on a Debian made here, and runs it |
"""
