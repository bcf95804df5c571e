"""Operations on dead letters, called by the command line and the HTTP API.

- `paging`: iterates over a selection in pages, oldest first
- `replay`: processes messages again, or previews that
- `republish`: sends messages to the broker again
- `correct`: replaces a dead letter by a corrected copy, processed at once
- `readable`: bodies as people read them
- `status`: changes the status, with an entry in the history
- `discard`: discards and restores
- `export_import`: export and import as JSON lines
- `retention`: deletes what is older than its retention
"""
