"""Commands about what was rejected: `deviceops dead-letters`.

- `seeing`: list, show
- `replaying`: replay, here or through the broker, or only foretold
- `editing`: edit
- `closing`: discard, restore
- `moving`: export, import, prune
- `selecting`: the options that select dead letters, the same for every command
- `render`: how people see them
"""

import typer

from worker.cli.dead_letters import closing, edit, export_import, replay, seeing

app = typer.Typer(help="See what was rejected, and why, and mend it.", no_args_is_help=True)
for commands in (seeing, replay, edit, closing, export_import):
    app.add_typer(commands.app)
