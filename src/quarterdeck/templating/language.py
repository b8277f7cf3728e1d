"""The language of templates: a part of Jinja's, checked when a template is stored.

Text, variables, `for`, `if`, comparisons, the filters and tests of `filters`, and a subscript by a constant. There are
no attributes, calls, macros, imports, assignments or arithmetic. Nodes are allowed by name: what a later Jinja adds is
refused.

Jinja is imported here and in what imports this module: 0.1 to 0.3 s, which a gateway without templates does not pay.
"""

import inspect
import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from jinja2 import StrictUndefined, nodes
from jinja2.exceptions import SecurityError, TemplateSyntaxError
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment

from quarterdeck.templating.errors import TemplateError
from quarterdeck.templating.filters import FILTERS, INTERNAL, TESTS, finalize

MAX_SOURCE = 64 * 1024
"""Characters of one template."""
MAX_NODES = 3000
"""Of all templates of a version: compiling them takes 0.2 s."""
MAX_DEPTH = 40
"""Of nested nodes: Python's compiler and the stack have bounds of their own."""
MAX_LOOPS = 4
"""Loops inside one another."""

_PLAIN = (nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.CondExpr, nodes.And, nodes.Or, nodes.Not)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
"""As `settings.prompts.VariableName`."""
_RESERVED = frozenset(("loop", "self", "super", "caller", "varargs", "kwargs", "cycler", "joiner", "namespace"))
_WORDS = {
    nodes.Getattr: "attributes (use a subscript: `item['name']`)",
    nodes.Call: "calls",
    nodes.Macro: "macros",
    nodes.CallBlock: "calls",
    nodes.Import: "imports",
    nodes.FromImport: "imports",
    nodes.Include: "includes",
    nodes.Extends: "inheritance",
    nodes.Block: "blocks",
    nodes.Assign: "assignments",
    nodes.AssignBlock: "assignments",
    nodes.With: "assignments",
    nodes.Slice: "slices",
    nodes.Concat: "`~` (write the values one after the other)",
    nodes.BinExpr: "arithmetic",
    nodes.UnaryExpr: "arithmetic",
    nodes.Dict: "objects",
}


class Environment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox without anything to call: a second wall behind the check of the nodes."""

    def __init__(self) -> None:
        super().__init__(
            undefined=StrictUndefined,
            autoescape=False,
            keep_trailing_newline=True,
            finalize=finalize,
            cache_size=0,
        )
        self.globals = {}
        self.filters = {**FILTERS, **INTERNAL}
        self.tests = dict(TESTS)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Elements of JSON's objects and lists, never an attribute."""
        if type(obj) is dict and type(argument) is str and argument in obj:
            return obj[argument]
        if type(obj) in (list, tuple) and type(argument) is int and -len(obj) <= argument < len(obj):
            return obj[argument]
        return self.undefined(obj=None, name=str(argument), hint=f"there is no [{argument!r}]")

    def getattr(self, obj: Any, attribute: str) -> Any:
        raise SecurityError("templates have no attributes")

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        raise SecurityError("templates call nothing")

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return False

    def is_safe_callable(self, obj: Any) -> bool:
        return False


class Parsed(NamedTuple):
    tree: nodes.Template
    """Checked, ready to compile."""
    names: frozenset[str]
    """The variables it reads."""
    optional: frozenset[str]
    """Those of them that it can do without: tested with `is defined`, or only ever read with `default`."""
    size: int
    """The number of its nodes."""


def parse(environment: Environment, source: str, max_nodes: int) -> Parsed:
    """Raises TemplateError."""
    if len(source) > MAX_SOURCE:
        raise TemplateError(f"a template has at most {MAX_SOURCE} characters")
    try:
        tree = environment.parse(source)
        count = _check(tree, max_nodes)
        names = frozenset(find_undeclared_variables(tree))
        optional = names & _optional(tree)
    except TemplateSyntaxError as error:
        raise TemplateError(f"line {error.lineno}: {error.message}") from None
    except RecursionError:
        raise TemplateError("the template is nested too deeply") from None
    except TemplateError:
        raise
    except ValueError:  # Python's limit for the digits of an integer
        raise TemplateError("a number has too many digits") from None
    _count_work(tree)
    return Parsed(tree, names, optional, count)


def _optional(tree: nodes.Template) -> frozenset[str]:
    """Names of which the template allows for that they have no value."""
    tested: set[str] = set()
    read, with_default = Counter[str](), Counter[str]()
    for name in tree.find_all(nodes.Name):
        if name.ctx == "load":
            read[name.name] += 1
    for test in tree.find_all(nodes.Test):
        if isinstance(test.node, nodes.Name) and test.name in ("defined", "undefined"):
            tested.add(test.node.name)
    for filtered in tree.find_all(nodes.Filter):
        if isinstance(filtered.node, nodes.Name) and filtered.name == "default":
            with_default[filtered.node.name] += 1
    return frozenset(tested.union(name for name, count in read.items() if with_default[name] == count))


def _check(tree: nodes.Template, max_nodes: int) -> int:
    waiting: list[tuple[nodes.Node, int, int]] = [(tree, 0, 0)]
    count = 0
    while waiting:
        node, depth, loops = waiting.pop()
        count += 1
        if count > max_nodes:
            raise TemplateError(f"a prompt has at most {MAX_NODES} variables, statements and constants")
        if depth > MAX_DEPTH:
            raise _refused(node, "the template is nested too deeply")
        if isinstance(node, nodes.For):
            loops += 1
            if loops > MAX_LOOPS:
                raise _refused(node, f"more than {MAX_LOOPS} loops inside one another")
        _check_node(node)
        waiting += [(child, depth + 1, loops) for child in node.iter_child_nodes()]
    return count


def _check_node(node: nodes.Node) -> None:
    if isinstance(node, nodes.Name):
        _check_name(node)
    elif isinstance(node, nodes.For):
        targets = node.target.items if isinstance(node.target, nodes.Tuple) else [node.target]
        if node.recursive or not all(isinstance(each, nodes.Name) for each in targets):
            raise _refused(node, "a loop has one variable, or a list of them, and no `recursive`")
    elif isinstance(node, nodes.Filter):
        _check_filter(node)
    elif isinstance(node, nodes.Test):
        if node.name not in TESTS or node.args or node.kwargs or node.dyn_args or node.dyn_kwargs:
            raise _refused(node, f"there is no test `{node.name}`; the tests are {', '.join(sorted(TESTS))}")
    elif isinstance(node, nodes.Getitem):
        constant = node.arg.node if isinstance(node.arg, nodes.Neg) else node.arg
        if not isinstance(constant, nodes.Const) or type(constant.value) not in (str, int):
            raise _refused(node, "a subscript is a constant: `item['name']` or `list[0]`")
    elif isinstance(node, nodes.Compare):
        if len(node.ops) != 1:
            raise _refused(node, "a comparison has two sides: use `and`")
    elif isinstance(node, nodes.Const):
        if type(node.value) not in (str, int, float, bool, type(None)):
            raise _refused(node, "a constant is a text, a number, a boolean or none")
        if isinstance(node.value, float) and not math.isfinite(node.value):  # Jinja would write the name `inf`
            raise _refused(node, "a number is too large")
    elif isinstance(node, nodes.Neg):
        if not isinstance(node.node, nodes.Const) or type(node.node.value) not in (int, float):
            raise _refused(node, "templates have no arithmetic")
    elif not isinstance(node, (*_PLAIN, nodes.Operand, nodes.Keyword, nodes.List, nodes.Tuple)):
        words = next((words for kind, words in _WORDS.items() if isinstance(node, kind)), None)
        raise _refused(node, f"templates have no {words or f'`{type(node).__name__.lower()}`'}")


def _check_name(node: nodes.Name) -> None:
    if node.name.startswith("_"):
        raise _refused(node, f"the name of a variable can't begin with `_`: `{node.name}`")
    if node.name in _RESERVED:
        raise _refused(node, f"`{node.name}` is no name for a variable")
    if not _NAME.fullmatch(node.name):  # Python takes `ﬁx` and `fix` for one name, and so would the compiled template
        raise _refused(node, f"the name of a variable has ASCII letters, digits and `_`: `{node.name[:64]}`")


def _check_filter(node: nodes.Filter) -> None:
    if node.node is None or node.name not in FILTERS:
        raise _refused(node, f"there is no filter `{node.name}`; the filters are {', '.join(sorted(FILTERS))}")
    if node.dyn_args is not None or node.dyn_kwargs is not None:
        raise _refused(node, f"`{node.name}` takes no `*` arguments")
    try:
        inspect.signature(FILTERS[node.name]).bind(
            None, None, *node.args, **{str(each.key): each for each in node.kwargs}
        )
    except TypeError as error:
        raise _refused(node, f"`{node.name}`: {error}") from None


def _count_work(tree: nodes.Template) -> None:
    """Have loops and comparisons count what they do: their operands go through a filter of our own."""
    for loop in list(tree.find_all(nodes.For)):
        # The test of a loop is evaluated for each element as well.
        weight = 1 + sum(1 for part in (*loop.body, loop.test) if part is not None for _ in _nodes_of(part))
        loop.iter = _filter(loop.iter, "_iterate", nodes.Const(weight))
    _replace_comparisons(tree)


def _replace_comparisons(node: nodes.Node) -> None:
    for field, value in list(node.iter_fields()):
        if isinstance(value, list):
            value[:] = [_replaced(each) for each in value]
        elif isinstance(value, nodes.Node):
            setattr(node, field, _replaced(value))


def _replaced(value: Any) -> Any:
    if not isinstance(value, nodes.Node):
        return value
    _replace_comparisons(value)
    if isinstance(value, nodes.Compare):
        operand = value.ops[0]
        return _filter(value.expr, "_compare", nodes.Const(operand.op), operand.expr)
    return value


def _filter(node: nodes.Node, name: str, *args: nodes.Expr) -> nodes.Filter:
    made = nodes.Filter(node, name, list(args), [], None, None, lineno=node.lineno)
    made.environment = node.environment
    return made


def _nodes_of(node: nodes.Node) -> Iterator[nodes.Node]:
    yield node
    for child in node.iter_child_nodes():
        yield from _nodes_of(child)


def _refused(node: nodes.Node, message: str) -> TemplateError:
    return TemplateError(f"line {node.lineno}: {message}" if node.lineno else message)
