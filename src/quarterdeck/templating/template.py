"""A template: compiled when a version of a prompt is read, rendered for each request that uses it.

Text without any braces is its own result, and needs no Jinja.
"""

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from quarterdeck.templating.allowance import Allowance
from quarterdeck.templating.errors import RenderError

if TYPE_CHECKING:  # see `language`
    from quarterdeck.templating.language import Parsed

_SYNTAX = re.compile(r"\{[{%#]")
_LINE_END = re.compile(r"\r\n|\r")

Render = Callable[[Mapping[str, Any], Allowance], str]


class Template:
    """`names`: the variables that it reads. `required`: those that it can't do without."""

    __slots__ = ("_render", "constant", "names", "nodes", "required")

    def __init__(self, source: str, max_nodes: int | None = None) -> None:
        """`max_nodes`: how many it may have; None: the language's own bound. Raises TemplateError."""
        self.constant: str | None = None
        """The result, where the template has no variables and no statements."""
        self.names: frozenset[str] = frozenset()
        self.required: frozenset[str] = frozenset()
        self.nodes = 0
        if _SYNTAX.search(source) is None:
            self.constant = _LINE_END.sub("\n", source)
            return
        self._render, parsed = _compile(source, max_nodes)
        self.names, self.required, self.nodes = parsed.names, parsed.names - parsed.optional, parsed.size

    def render(self, values: Mapping[str, Any], allowance: Allowance) -> str:
        """Values are those of JSON, one for each name. Raises RenderError."""
        if self.constant is not None:
            allowance.write(self.constant)
            return self.constant
        return self._render(values, allowance)


def _compile(source: str, max_nodes: int | None) -> "tuple[Render, Parsed]":
    # Imported here: see `language`.
    from jinja2.exceptions import SecurityError, UndefinedError

    from quarterdeck.templating.filters import ALLOWANCE
    from quarterdeck.templating.language import MAX_NODES, parse

    environment = _environment()
    parsed = parse(environment, source, MAX_NODES if max_nodes is None else max_nodes)
    template = environment.from_string(parsed.tree)

    def render(values: Mapping[str, Any], allowance: Allowance) -> str:
        context = template.new_context({**values, ALLOWANCE: allowance}, shared=True)
        pieces = []
        try:
            for piece in template.root_render_func(context):
                allowance.write(piece)
                pieces.append(piece)
        except (UndefinedError, SecurityError) as error:
            raise RenderError(str(error)) from None
        except RecursionError:
            raise RenderError("a value is nested too deeply") from None
        except (
            ValueError,
            TypeError,
            OverflowError,
        ) as error:  # unpacking `for a, b in …`, a number of too many digits
            raise RenderError(str(error)) from error
        return "".join(pieces)

    return render, parsed


@cache
def _environment() -> Any:
    """Stateless: it holds the language's rules, and caches no template."""
    from quarterdeck.templating.language import Environment

    return Environment()
