"""The page of an operation, and what is done to it.

- `show`: the page and its live parts; `going`: what the upper part says; `chart`: when its devices settled
- `devices`: the list of its device operations, with the filters of the API, and their export
- `announce`, `cancel`, `retry`: the acts, each a page of its own with a form
"""
