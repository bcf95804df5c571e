"""`python -m tests.faults.sabotaged …`: the command `deviceops …`, which obeys the tests as `sabotage` says."""

from tests.faults import sabotage
from worker.cli import main

if __name__ == "__main__":
    sabotage.prepare()
    main()
