"""What people do with what was rejected; the command line and the HTTP API both call these.

- `pages`: a selection of dead letters in pages, the oldest first
- `replay`: through the same processing again, or what would come of that
- `republish`: to the broker again
- `correct`: a corrected copy, processed at once
- `marking`: where they stand, changed, and who did it
- `closing`: discard, and take it back
- `transfer`: export and import as JSON lines
- `retention`: what is kept for how long
"""
