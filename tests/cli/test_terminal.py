"""Terminal output of `up`."""

import io

from quarterdeck.cli.terminal import Terminal


def test_a_step_has_its_time_and_further_lines_are_indented() -> None:
    out, times = io.StringIO(), iter([10.0, 13.14])
    Terminal(out, lambda: next(times)).step("gateway", "up (pid 7)\nmore")
    assert out.getvalue() == "[   3.1s] gateway   up (pid 7)\n           more\n"


def test_a_closed_pipe_is_ignored() -> None:
    out = io.StringIO()
    terminal = Terminal(out)
    out.close()
    terminal.block("text")
