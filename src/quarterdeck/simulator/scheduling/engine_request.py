"""The work of one HTTP request: prompts, and outputs decided in advance."""

from dataclasses import dataclass

from quarterdeck.simulator.model.stop_conditions import CompletionOutput


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """`outputs` are ordered by prompt, `n` for each."""

    prompts: list[list[str]]
    outputs: list[CompletionOutput]
    n: int = 1
    max_tokens: int = 0
    adapter: str | None = None
    salt: str | None = None

    @property
    def prompt_tokens(self) -> int:
        return sum(map(len, self.prompts))

    @property
    def completion_tokens(self) -> int:
        return sum(len(output.pieces) for output in self.outputs)
