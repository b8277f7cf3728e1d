"""The engine's calls of one turn, as steps: functions for the client, MCP calls, approval requests. Pure."""

from quarterdeck.resources.responses.deltas import Step
from quarterdeck.resources.responses.tool_loop.toolbox import Toolbox


class TurnCalls:
    """`remaining`: how many calls of servers' tools may still be made; further ones are ignored, as OpenAI's
    `max_tool_calls` has it. None: the model had to answer, and all are ignored."""

    def __init__(self, toolbox: Toolbox, remaining: int | None, *, keeps_text: bool = True) -> None:
        """`keeps_text` false: what the model says beside its calls is dropped."""
        self._toolbox = toolbox
        self._keeps_text = keeps_text
        self._remaining = remaining
        self._unnamed: dict[int, Step] = {}
        """Calls whose names have not arrived."""
        self._waiting: dict[int, tuple[str, str, list[str]]] = {}
        """Label, name and arguments of calls that need an approval."""
        self._functions: set[int] = set()
        self._ignored: set[int] = set()
        self.running: dict[int, tuple[str, str]] = {}
        """Label and name of the tools to be called now."""

    @property
    def is_clients_turn(self) -> bool:
        """Whether the client has to answer: to call functions, or to approve."""
        return bool(self._functions or self._waiting)

    @property
    def has_ignored(self) -> bool:
        """Whether there were calls beyond those that may be made."""
        return bool(self._ignored)

    def route(self, steps: list[Step]) -> list[Step]:
        """The response's steps of an answer's."""
        made: list[Step] = []
        for step in steps:
            if step[0] == "call":
                made += self._call(step)
            elif self._keeps_text or step[0] == "reasoning":
                made.append(step)
        return made

    def end(self) -> list[Step]:
        """The answer is complete. Empty: it called nothing."""
        made: list[Step] = list(self._unnamed.values())  # a call without a name is the client's to refuse
        self._functions |= self._unnamed.keys()
        if self.running or self.is_clients_turn:
            made.append(["called"])
        made += [["approve", label, name, "".join(said) or "{}"] for label, name, said in self._waiting.values()]
        return made

    def _call(self, step: Step) -> list[Step]:
        _, index, call_id, name, arguments = step
        if index in self._ignored:
            return []
        if index in self._functions:
            return [step]
        if index in self._waiting:
            self._waiting[index][2].append(arguments)
            return []
        if index in self.running:
            return [["mcp", index, *self.running[index], arguments]]
        if (before := self._unnamed.pop(index, None)) is not None:
            call_id, arguments = before[2] or call_id, before[4] + arguments
        if not name:
            self._unnamed[index] = ["call", index, call_id, "", arguments]
            return []
        found = self._toolbox.called(name)
        if found is None:
            self._functions.add(index)
            return [["call", index, call_id, name, arguments]]
        label, tool = found
        if self._remaining is None:
            self._ignored.add(index)
            return []
        if self._toolbox.servers[label].needs_approval(tool):
            self._waiting[index] = (label, tool.name, [arguments])
            return []
        if self._remaining <= 0:
            self._ignored.add(index)
            return []
        self._remaining -= 1
        self.running[index] = (label, tool.name)
        return [["mcp", index, label, tool.name, arguments]]
