"""`python -m worker` is the `deviceops` command."""

import gc


def main() -> None:
    """Import the command line, and run it."""
    gc.disable()
    from worker.cli import main as run

    # What was imported stays. To look for garbage in it, above all at the end, took a quarter of a short command.
    gc.freeze()
    gc.enable()
    run()


if __name__ == "__main__":
    main()
