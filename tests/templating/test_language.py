"""Templates have variables, loops, conditions and a few filters, and no way to anything else."""

import json
import string
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import Environment as PlainJinja

from quarterdeck.templating.allowance import Allowance
from quarterdeck.templating.errors import RenderError, TemplateError
from quarterdeck.templating.filters import FILTERS, TESTS
from quarterdeck.templating.language import MAX_SOURCE
from quarterdeck.templating.template import Template


def render(source: str, allowance: Allowance | None = None, /, **values: Any) -> str:
    return Template(source).render(values, allowance or Allowance())


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("Hello {{ name }}!", "Hello Ann!"),
        ("{% for n in numbers %}{{ n }},{% endfor %}", "1,2,3,"),
        ("{% for n in numbers if n > 1 %}{{ n }}{% else %}none{% endfor %}", "23"),
        ("{% for n in [] %}{{ n }}{% else %}none{% endfor %}", "none"),
        ("{% for k, v in person|items %}{{ k }}={{ v }};{% endfor %}", "name=Bo;age=7;"),
        ("{% if numbers|length == 3 and name != 'x' %}yes{% elif name %}no{% else %}?{% endif %}", "yes"),
        ("{% if name in ['Ann', 'Bo'] %}in{% endif %}{% if 'q' not in name %}, not in{% endif %}", "in, not in"),
        ("{{ 'a' if person['age'] >= 7 else 'b' }}", "a"),
        ("{{ person['name'] }} {{ numbers[-1] }}", "Bo 3"),
        ("{{ person }} {{ flag }} {{ nothing }}|{{ 1.5 }}", '{"name":"Bo","age":7} true |1.5'),
        ("{{ nothing|default('x') }} {{ person['email'] is defined }}", "x false"),
        ("{{ numbers|join(' + ') }} {{ numbers|first }} {{ numbers|last }}", "1 + 2 + 3 1 3"),
        ("{{ name|upper|lower|title|capitalize|trim }}", "Ann"),
        ("{{ name|replace('n', 'mm') }} {{ name|truncate(2) }}", "Ammmm A…"),
        ("{{ 'a\\nb'|indent(2, first=true) }}", "  a\n  b"),
        ("{{ [3, 1, 3]|unique|sort }} {{ person|tojson(indent=1) }}", '[1,3] {\n "name": "Bo",\n "age": 7\n}'),
        ("{% raw %}{{ name }}{% endraw %}{# a comment #}", "{{ name }}"),
        ("a\r\n{{ name }}\n", "a\nAnn\n"),
        ("a\r\nb\n", "a\nb\n"),
        ("{{ '{{ name }}' }}", "{{ name }}"),
    ],
)
def test_what_templates_have(source: str, expected: str) -> None:
    values = {"name": "Ann", "numbers": [1, 2, 3], "person": {"name": "Bo", "age": 7}, "flag": True, "nothing": None}
    assert render(source, **values) == expected


def test_a_value_is_never_read_as_a_template() -> None:
    evil = "{{ secret }}{% for x in y %}{% endfor %}{{ ''.__class__ }}"
    assert render("{{ x }}{{ x|upper|lower }}", x=evil, secret="s") == evil + evil.lower()


PAYLOADS = [
    "{{ ''.__class__ }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''['__class__']['__mro__'][2]['__subclasses__']()[40]('/etc/passwd').read() }}",
    "{{ [].__class__.__base__.__subclasses__() }}",
    "{{ ().__class__.__bases__[0].__subclasses__()[59].__init__.__globals__ }}",
    "{{ config }}",
    "{{ config.items() }}",
    "{{ config.__class__.__init__.__globals__['os'].popen('id').read() }}",
    "{{ self.__init__.__globals__.__builtins__ }}",
    "{{ self._TemplateReference__context.cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ joiner.__init__.__globals__.os.popen('id').read() }}",
    "{{ namespace.__init__.__globals__.os.popen('id').read() }}",
    "{{ lipsum.__globals__['os'].popen('id').read() }}",
    "{{ lipsum|attr('__globals__') }}",
    "{{ request.application.__globals__.__builtins__.__import__('os').popen('id').read() }}",
    "{{ request|attr('application')|attr('\\x5f\\x5fglobals\\x5f\\x5f') }}",
    "{{ url_for.__globals__ }}",
    "{{ get_flashed_messages.__globals__ }}",
    "{{ g.pop.__globals__ }}",
    "{{ x|attr('__class__') }}",
    "{{ x|attr(['_'*2,'class','_'*2]|join) }}",
    "{{ ''|map('attr', '__class__')|list }}",
    "{{ [x]|map(attribute='__class__')|list }}",
    "{{ [x]|sort(attribute='__class__') }}",
    "{{ [x]|groupby('__class__') }}",
    "{{ [x]|sum(attribute='__class__') }}",
    "{{ [x]|selectattr('__class__') }}",
    "{{ x|format(x.__class__) }}",
    "{{ '{0.__class__}'.format(x) }}",
    "{{ '%s'|format(x) }}",
    "{{ x.format_map(y) }}",
    "{{ x['__class__'] }}",
    "{{ x['\\x5f\\x5fclass\\x5f\\x5f'] }}",
    "{{ x[y] }}",
    "{{ x['a' ~ 'b'] }}",
    "{{ x[0:10] }}",
    "{{ x.upper }}",
    "{{ x['upper'] }}",
    "{{ x.upper() }}",
    "{{ x() }}",
    "{{ range(1000000000) }}",
    "{{ dict(a=1) }}",
    "{{ {'a': 1} }}",
    "{{ 'a' * 1000000000 }}",
    "{{ 10 ** 10 ** 10 }}",
    "{{ 1 / 0 }}",
    "{{ x ~ x }}",
    "{% set x = 1 %}",
    "{% set x %}a{% endset %}",
    "{% with a = x %}{{ a }}{% endwith %}",
    "{% macro m() %}{{ caller() }}{% endmacro %}{{ m() }}",
    "{% call x() %}{% endcall %}",
    "{% filter upper %}a{% endfilter %}",
    "{% import 'os' as os %}",
    "{% from 'os' import popen %}",
    "{% include '/etc/passwd' %}",
    "{% extends 'base.html' %}",
    "{% block a %}{% endblock %}",
    "{% autoescape true %}{{ x }}{% endautoescape %}",
    "{% do x.append(1) %}",
    "{% for x in y recursive %}{{ loop(x) }}{% endfor %}",
    "{% for x.y in z %}{% endfor %}",
    "{% for x in y %}{{ loop.__class__ }}{% endfor %}",
    "{% for _ in x %}{% endfor %}",
    "{{ _allowance }}",
    "{{ __import__('os') }}",
    "{{ x|_iterate(1) }}",
    "{{ x|_compare('eq', y) }}",
    "{{ x is callable }}",
    "{{ x is sameas y }}",
    "{{ x is filter }}",
    "{{ x|pprint }}",
    "{{ x|xmlattr }}",
    "{{ x|list|random }}",
    "{{ x|safe }}",
    "{{ x|upper(*y) }}",
    "{{ x|upper(**y) }}",
    "{{ x|default(y.__class__) }}",
    "{{ 1 < x < 3 }}",
    "{{ 1j }}",
    "{{ self }}",
    "{{ super() }}",
    "{{ caller }}",
    "{{ varargs }}{{ kwargs }}",
    "{%- print(x) -%}",
    "{{ x if y.z else x }}",
    "{{ (x, y.z) }}",
    "{{ not x.y }}",
    "{% if x.y %}{% endif %}",
]
"""Known payloads of template injection, most of them of the usual collections, and each construct that is not ours."""


@pytest.mark.parametrize("source", PAYLOADS)
def test_a_payload_is_refused_or_finds_nothing(source: str) -> None:
    try:
        template = Template(source)
    except TemplateError:
        return
    values = dict.fromkeys(template.names, "value")
    try:
        made = template.render(values, Allowance())
    except RenderError:
        return
    # A name such as `config` is an ordinary variable here.
    assert made in ("value", "valuevalue", ""), made


def test_most_payloads_are_refused_when_they_are_stored() -> None:
    def is_refused(source: str) -> bool:
        try:
            Template(source)
        except TemplateError:
            return True
        return False

    accepted = [source for source in PAYLOADS if not is_refused(source)]
    assert accepted == [
        "{{ config }}",
        "{{ x['__class__'] }}",
        "{{ x['\\x5f\\x5fclass\\x5f\\x5f'] }}",
        "{{ x['upper'] }}",
        "{%- print(x) -%}",
    ]


@pytest.mark.parametrize(
    "value", ["text", 7, 1.5, True, None, ["a"], {"a": "b"}, [[1]], {"__class__": "x"}], ids=lambda each: repr(each)
)
@pytest.mark.parametrize("name", ["__class__", "upper", "append", "items", "keys", "real", "__len__", "mro"])
def test_a_subscript_reads_members_and_never_attributes(value: Any, name: str) -> None:
    if isinstance(value, dict) and name in value:
        assert render(f"{{{{ x['{name}'] }}}}", x=value) == value[name]
    else:
        with pytest.raises(RenderError, match="there is no"):
            render(f"{{{{ x['{name}'] }}}}", x=value)


_words = st.sampled_from(
    [
        *("{{", "}}", "{%", "%}", "{#", "#}", "-%}", "for", "in", "if", "else", "endif", "endfor", "x", "y", "is"),
        *("|", ".", "[", "]", "(", ")", "'", '"', "~", "*", "+", "-", ",", "==", "<", "=", ":", "not", "and", "or"),
        *("set", "macro", "call", "import", "include", "loop", "self", "__class__", "_allowance", "0", "1", "range"),
        *FILTERS,
        *TESTS,
        *("attr", "map", "format", "xmlattr", " ", "\n"),
    ]
)
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=400, deadline=None)
@given(words=st.lists(_words, max_size=24), values=st.fixed_dictionaries({"x": _json, "y": _json}))
def test_any_template_is_refused_or_gives_a_bounded_text_without_python_in_it(
    words: list[str], values: dict[str, Any]
) -> None:
    source = " ".join(words)
    try:
        template = Template(source)
    except TemplateError:
        return
    allowance = Allowance(max_steps=2000, max_bytes=4000)
    try:
        made = template.render({name: values.get(name, "v") for name in template.names}, allowance)
    except RenderError:
        return
    assert len(made.encode()) <= 4000
    for mark in ("<class", "<built-in", "<bound", "<function", " object at 0x", "<generator"):
        assert mark not in made


@given(st.text(string.printable.replace("{", "").replace("\r", ""), max_size=200))
def test_text_without_braces_is_itself_as_jinja_has_it(text: str) -> None:
    jinja = PlainJinja(keep_trailing_newline=True)  # noqa: S701  # a prompt is no HTML
    assert render(text) == text == jinja.from_string(text).render()


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in x %}{% for b in x %}{% for c in x %}{% endfor %}{% endfor %}{% endfor %}",
        "{% for a in x %}{% for b in x %}{{ b }}{% endfor %}{% endfor %}",
        "{% for a in x %}{% for b in x if b == a %}{% endfor %}{% endfor %}",
        "{% for a in x %}{% if big|upper == 'a' %}{% endif %}{% endfor %}",
        "{% for a in x %}{% if big == other %}{% endif %}{% endfor %}",
        "{% for a in x %}{% if 'ab' in big %}{% endif %}{% endfor %}",
        "{% for a in x %}{% if 'ab' in x %}{% endif %}{% endfor %}",
        "{% for a in x %}{{ big }}{% endfor %}",
        "{{ big" + "|tojson" * 25 + " }}",
        "{{ x|join(big) }}",
        "{{ big|replace('a', big) }}",
        "{{ big|indent(1000000) }}",
        "{% for a in x %}{% if x|sort|length %}{% endif %}{% endfor %}",
        "{{ big }}" * 20,
        "{{ [" + ", ".join(["[" + ", ".join(["big"] * 50) + "]"] * 50) + "]|tojson|length }}",
        "{{ deep|tojson(8)|length }}",
        "{{ [deep, deep]|tojson(8)|length }}",
    ],
)
def test_work_and_output_are_bounded(source: str) -> None:
    deep: list[Any] = [1] * 200_000
    for _ in range(500):
        deep = [deep]
    values = {
        "deep": deep,
        "x": [str(n) for n in range(2000)],
        "big": 'a"\\\n' * 25_000,
        "other": 'a"\\\n' * 24_999 + 'a"\\b',
    }
    started = time.process_time()
    with pytest.raises(RenderError, match=r"steps|larger than"):
        render(source, **values)
    assert time.process_time() - started < 20  # minutes to for ever without the bounds


def test_json_that_is_larger_than_any_output_is_not_made() -> None:
    deep: list[Any] = [1] * 200_000
    for _ in range(500):
        deep = [deep]
    tracemalloc.start()
    try:
        for source in ("{{ deep|tojson(8) }}", "{{ " + "[" + ", ".join(["big"] * 500) + "]" + "|tojson }}"):
            with pytest.raises(RenderError):
                render(source, deep=deep, big="a" * 1_000_000)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000  # half a gigabyte each
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "value", [[1, [2, {"a": "b", "c": [None, True, 1.5]}], "d"], {"a": {"b": {}}, "c": [[], "é"]}, [], {}, [[[]]]]
)
def test_json_of_any_shape_is_whole(value: Any) -> None:
    assert json.loads(render("{{ value|tojson }}", value=value)) == value
    assert json.loads(render("{{ value|tojson(2) }}", value=value)) == value
    assert json.loads(render("{{ value }}", value=value)) == value


def test_a_large_document_in_a_loop_of_a_thousand_is_rendered() -> None:
    documents = [{"title": f"t{n}", "text": "x" * 500} for n in range(1000)]
    source = "{% for d in documents %}<doc title={{ d['title']|tojson }}>{{ d['text'] }}</doc>\n{% endfor %}"
    assert render(source, documents=documents).count("<doc") == 1000


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("a\n{{ x.y }}", "line 2: templates have no attributes"),
        ("{% if x %}", "line 1: unexpected end of template|Unexpected end of template"),
        ("{{ x|shout }}", "there is no filter `shout`|No filter named 'shout'"),
        ("{{ x|replace('a') }}", "missing a required argument"),
        ("{{ " + "(" * 2000 + "x" + ")" * 2000 + " }}", "nested too deeply"),
        ("{% if x %}" * 60 + "{% endif %}" * 60, "nested too deeply"),
        ("{% for a in x %}" * 5 + "{% endfor %}" * 5, "more than 4 loops"),
        ("{{ x }}" * 3000, "at most 3000"),
        ("x" * MAX_SOURCE + "{{ x }}", "at most 65536 characters"),
        ("{{ " + "9" * 5000 + " }}", "too many digits"),
        ("{{ 0x" + "f" * 5000 + " }}", "too many digits"),
        ("{{ 1e400 }}", "line 1: a number is too large"),
        ("{% if x < -1e999 %}{% endif %}", "line 1: a number is too large"),
        ("{{ ﬁx }}", "line 1: the name of a variable has ASCII letters"),
        ("{{ 𝐱 }}", "line 1: the name of a variable has ASCII letters"),
        ("{% autoescape true %}{% endautoescape %}", "^templates have no `scope`"),
    ],
)
def test_what_is_refused_says_where_and_why(source: str, message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        Template(source)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ x['missing'] }}", r"there is no \['missing'\]"),
        ("{% for a in name %}{% endfor %}", "`for` needs a list, got a string"),
        ("{% if name < 3 %}{% endif %}", "a string can't be compared with an integer"),
        ("{% if x == x %}{% endif %}", "lists and objects can't be compared"),
        ("{% for a, b in [1] %}{% endfor %}", "cannot unpack"),
        ("{{ name|join }}", "`join` needs a list, got a string"),
        ("{{ [1, 'a']|sort }}", "one type"),
        ("{{ []|first }}", "empty list"),
        ("{{ name|truncate('a') }}", "needs a number"),
    ],
)
def test_what_can_not_be_rendered_says_why(source: str, message: str) -> None:
    with pytest.raises(RenderError, match=message):
        render(source, x={"a": 1}, name="n")


def test_jinja_is_not_imported_for_plain_text() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from quarterdeck.templating.prompt import CompiledPrompt;"
        "from quarterdeck.settings.prompts import PromptSpec;"
        "CompiledPrompt(PromptSpec(text='plain {json}')).text({}); assert 'jinja2' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
