"""A version of a prompt, compiled: from values of its variables to the text or the messages of a request. Pure."""

from collections.abc import Callable, Mapping
from typing import Any

from quarterdeck.settings.prompts import Content, PromptMessage, PromptSpec
from quarterdeck.templating.allowance import Allowance
from quarterdeck.templating.errors import TemplateError
from quarterdeck.templating.template import Template
from quarterdeck.templating.variables import Declaration, fault_of_default

MAX_NODES = 3000
"""As `language.MAX_NODES`, for all templates of a version together."""

NODES_A_TEMPLATE = 10
"""What compiling a template costs besides its nodes: two milliseconds."""

_PLAIN = frozenset(("type", "role", "detail", "format"))
"""Members of a content part that are no templates."""

Values = Mapping[str, Any]
_Make = Callable[[Values, Allowance], Any]


class SpecError(ValueError):
    """A version that can't be stored. `param`: the member at fault."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


class CompiledPrompt:
    """Made once for each version, and kept (`inference/prompts`)."""

    __slots__ = ("_messages", "_system", "_text", "declaration", "examples", "spec")

    def __init__(self, spec: PromptSpec) -> None:
        """Raises SpecError."""
        self.spec = spec
        compiler = _Compiler()
        self._text = None if spec.text is None else compiler.template(spec.text, "text")
        self._messages = [compiler.message(each, at) for at, each in enumerate(spec.messages or ())]
        self.examples = [
            message
            for each in spec.examples
            for message in ({"role": "user", "content": each.input}, {"role": "assistant", "content": each.output})
        ]
        self._system = _leading_system_messages(spec)
        for name, variable in spec.variables.items():
            if (fault := fault_of_default(variable)) is not None:
                raise SpecError(f"The default of '{name}' {fault}.", f"variables.{name}.default")
        for name in compiler.placeholders:
            if name not in spec.variables or spec.variables[name].type != "messages":
                raise SpecError(f"A placeholder needs a variable of type messages: '{name}'.", f"variables.{name}")
        for name in compiler.names:
            if name in spec.variables and spec.variables[name].type == "messages":
                raise SpecError(f"'{name}' is a list of messages, which only a placeholder takes.", f"variables.{name}")
        self.declaration = Declaration(spec.variables, compiler.names, compiler.required)

    def text(self, given: Values) -> str:
        """The text of a text prompt. Raises VariablesError and RenderError."""
        assert self._text is not None  # noqa: S101  # of a text prompt
        return self._text.render(self.declaration.check(given), Allowance())

    def messages(self, given: Values) -> list[dict[str, Any]]:
        """The messages of a chat prompt. Raises VariablesError and RenderError."""
        values, allowance = self.declaration.check(given), Allowance()
        made: list[dict[str, Any]] = []
        for at, make in enumerate(self._messages):
            if at == self._system:
                made += self.examples
            found = make(values, allowance)
            if isinstance(found, list):
                made += found
            else:
                made.append(found)
        if self._system == len(self._messages):
            made += self.examples
        return made


def _leading_system_messages(spec: PromptSpec) -> int:
    count = 0
    for message in spec.messages or ():
        if message.role not in ("system", "developer"):
            break
        count += 1
    return count


class _Compiler:
    """Compiles the templates of one version, and collects what they use."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.required: set[str] = set()
        self.placeholders: list[str] = []
        self._nodes = MAX_NODES

    def template(self, source: str, param: str) -> Template:
        try:
            made = Template(source, max(0, self._nodes - NODES_A_TEMPLATE))
        except TemplateError as error:
            raise SpecError(f"Invalid template: {error}.", param) from None
        if made.constant is None:
            self._nodes -= made.nodes + NODES_A_TEMPLATE
        self.names |= made.names
        self.required |= made.required
        return made

    def message(self, message: PromptMessage, at: int) -> _Make:
        if (name := message.placeholder) is not None:
            self.placeholders.append(name)
            return lambda values, allowance: values[name]
        param = f"messages[{at}].content"
        content = self._content(message.content or "", param)
        fixed: dict[str, Any] = {"role": message.role}
        if message.name is not None:
            fixed["name"] = message.name
        return lambda values, allowance: {**fixed, "content": content(values, allowance)}

    def _content(self, content: Content, param: str) -> _Make:
        if isinstance(content, str):
            return self.template(content, param).render
        try:
            parts = [self._value(part, f"{param}[{at}]") for at, part in enumerate(content)]
        except RecursionError:
            raise SpecError("A content part is nested too deeply.", param) from None
        return lambda values, allowance: [part(values, allowance) for part in parts]

    def _value(self, value: Any, param: str) -> _Make:
        """A content part: each text below it is a template."""
        if isinstance(value, str):
            return self.template(value, param).render
        if isinstance(value, dict):
            made = {
                key: self._value(each, f"{param}.{key}") if key not in _PLAIN else _constant(each)
                for key, each in value.items()
            }
            return lambda values, allowance: {key: make(values, allowance) for key, make in made.items()}
        if isinstance(value, list):
            listed = [self._value(each, f"{param}[{at}]") for at, each in enumerate(value)]
            return lambda values, allowance: [make(values, allowance) for make in listed]
        return _constant(value)


def _constant(value: Any) -> _Make:
    return lambda values, allowance: value
