"""Constructs that must not appear in the source of request-handling processes, checked statically.

Template injection, commands and code built from requests (CVE-2026-42271), SQL built from text (CVE-2026-42208),
decisions on a URL derived from the Host header (CVE-2026-48710).
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import quarterdeck

SOURCE = Path(quarterdeck.__file__).parent
TAKES_REQUESTS = (
    *("gateway", "resources", "inference", "accounting", "protocol", "store", "telemetry", "templating", "net"),
)
NEVER_IMPORTED = {
    "jinja2",
    "mako",
    "string.Template",
    "subprocess",
    "pickle",
    "marshal",
    "shelve",
    "ctypes",
    "runpy",
    "code",
}
JINJA = {"jinja2"}
"""Imported by `templating` alone, whose language tests/templating/test_language.py attacks."""
NEVER_CALLED = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "importlib.import_module"}
SQL_TEXT = {"text", "exec_driver_sql", "literal_column", "execute"}
OUR_OWN_WORDS = {"store/database.py"}
"""Its pragmas are built from names in that file."""


def trees() -> Iterator[tuple[str, ast.Module]]:
    for floor in TAKES_REQUESTS:
        for path in sorted((SOURCE / floor).rglob("*.py")):
            yield str(path.relative_to(SOURCE)), ast.parse(path.read_text())


def calls(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def is_put_together(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr | ast.BinOp) or (
        isinstance(node, ast.Call) and "format" in ast.unparse(node.func)
    )


def test_the_look_sees_the_source() -> None:
    names = {name for name, _ in trees()}
    assert {"gateway/http/front.py", "inference/pipeline.py", "store/keys.py"} <= names


def test_no_template_engine_no_command_and_no_pickle_is_imported() -> None:
    for name, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found = {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found = {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
            else:
                continue
            allowed = JINJA if name.startswith("templating/") else set()
            assert not (found & NEVER_IMPORTED) - allowed, name


def test_nothing_is_evaluated() -> None:
    for name, tree in trees():
        assert not {called for called, _ in calls(tree)} & NEVER_CALLED, name


def test_no_format_is_another_ones_words() -> None:
    """`format` on a non-literal, and log lines with a computed pattern, evaluate their input."""
    for name, tree in trees():
        for called, node in calls(tree):
            owner, _, method = called.rpartition(".")
            if method in ("format", "format_map") and owner not in ("", "super()", "self", "msgspec.json"):
                assert isinstance(node.func, ast.Attribute)
                assert isinstance(node.func.value, ast.Constant), f"{name}: {called}"
            if owner == "log" and method in ("debug", "info", "warning", "error", "exception"):
                assert isinstance(node.args[0], ast.Constant), f"{name}:{node.lineno}: the pattern is put together"


def test_no_sql_is_put_together_from_text() -> None:
    for name, tree in trees():
        for called, node in calls(tree):
            method = called.rpartition(".")[2]
            # Only the store speaks SQL (import-linter's contract).
            if name.startswith("store/") and method in SQL_TEXT and node.args and name not in OUR_OWN_WORDS:
                assert not is_put_together(node.args[0]), f"{name}:{node.lineno}"


def test_nothing_asks_what_the_host_header_makes_of_a_url() -> None:
    for name, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                assert node.attr != "url_for", f"{name}:{node.lineno}"
                of_request = ast.unparse(node.value) in ("request", "self.request")
                assert not (of_request and node.attr in ("url", "base_url")), f"{name}:{node.lineno}"
