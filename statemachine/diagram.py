"""A Mermaid diagram of the state machine, made from its declaration."""

from statemachine.device_operation import MACHINE
from statemachine.states import SETTLED, State


def mermaid() -> str:
    """A Mermaid `stateDiagram-v2` of the direct steps; settled states have a thick border."""
    steps = (f"    {step.source} --> {step.dest}" for step in MACHINE.get_transitions())
    settled = ",".join(state.name for state in State if state in SETTLED)
    return "\n".join(
        [
            "stateDiagram-v2",
            "    direction LR",
            f"    [*] --> {MACHINE.initial}",
            *steps,
            "    classDef settled stroke-width:3px",
            f"    class {settled} settled",
        ]
    )
