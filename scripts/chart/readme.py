"""README.md of the chart: a table of its values."""

import json

from chart.values import Value

_INTRODUCTION = """\
# charts/quarterdeck

Quarterdeck on Kubernetes: gateway, worker, operator and Redis. Engines are [Models](../../docs/kubernetes.md), which
the operator starts.

```bash
helm install quarterdeck charts/quarterdeck --namespace quarterdeck --create-namespace
```

How to install, upgrade, and find out what is wrong: [docs/kubernetes.md](../../docs/kubernetes.md). Values that install
in the project's tests: [ci/](ci/).

Unknown keys are refused. `config` is validated as [quarterdeck.yaml](../../docs/reference/settings.md) is.
"""


def readme(values: Value, notice: str, introduction: str = _INTRODUCTION) -> str:
    """The page's text."""
    parts = [notice, introduction]
    loose = [each for each in values.children if not each.children]
    parts.append("## Values\n")
    parts += _table(loose)
    for section in values.children:
        if section.children:
            parts.append(f"### `{section.name}`\n")
            parts += _table(list(section.leaves()))
    return "\n".join(parts)


def _table(values: list[Value]) -> list[str]:
    rows = [f"| `{each.name}` | {_default(each)} | {_cell(each.description)} |" for each in values]
    return ["| value | default | |", "|---|---|---|", *rows, ""]


def _default(value: Value) -> str:
    text = json.dumps(value.default, ensure_ascii=False)
    return f"`{_cell(text)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
