"""The state diagrams in the documents, drawn from the tables that the program works by."""

from enum import Enum

from kv.net import directions

#: The text on an arrow: what the owner calls by its name, everything else in words.
CALLS = {"close", "half_close", "finish", "abort", "write"}


def diagram(name: str) -> str:
    """The direction `name`, Incoming or Outgoing, as a Mermaid diagram."""
    states: type[Enum] = getattr(directions, name)
    table: dict[Enum, dict[Enum, Enum]] = getattr(directions, name.upper())
    drawn = ["```mermaid", "stateDiagram-v2", f"    [*] --> {next(iter(states)).name}"]
    for state, row in table.items():
        arrows: dict[str, list[str]] = {}
        for event, then in row.items():
            if then is not state:  # what changes nothing is not drawn
                arrows.setdefault(then.name, []).append(str(event.value))
        for target, events in arrows.items():
            drawn.append(f"    {state.name} --> {target} : {', '.join(events)}")
    drawn += [f"    note right of {state.name} : {state.value}" for state in states]
    return "\n".join([*drawn, "```", ""])
