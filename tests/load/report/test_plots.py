"""The SVG: axes, positions and escaping."""

import itertools
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.load.report import plots
from quarterdeck.load.report.plots import Line, Mark, Plot, axis, draw, even_ticks, labels, log_ticks, number


def drawn(*lines: Line, **more: object) -> ElementTree.Element:
    plot = Plot("A title", "What is seen", "x", "y", lines, **more)  # type: ignore[arg-type]  # the plot's own fields
    return ElementTree.fromstring(draw(plot, "p1"))  # noqa: S314  # our own text


@given(st.lists(st.floats(1e-3, 1e9), min_size=1, max_size=50), st.booleans(), st.booleans())
def test_an_axis_holds_all_its_values_in_their_order(values: list[float], is_log: bool, from_zero: bool) -> None:
    made = axis(values, 0, 100, is_log=is_log, from_zero=from_zero)
    places = [made.place(value) for value in sorted(values)]
    assert all(-1e-6 <= place <= 100 + 1e-6 for place in places)
    assert all(a <= b + 1e-9 for a, b in itertools.pairwise(places))
    ticks = made.ticks()
    assert ticks == sorted(ticks)
    assert all(made.low * (1 - 1e-9) <= tick <= made.high * (1 + 1e-9) for tick in ticks)


@pytest.mark.parametrize("values", [[], [0.0], [5.0], [5.0, 5.0], [-3.0, 3.0]])
def test_few_values_make_an_axis_too(values: list[float]) -> None:
    for is_log in (True, False):
        made = axis(values, 0, 100, is_log=is_log, from_zero=True)
        assert made.low < made.high
        assert 2 <= len(made.ticks()) <= 12


def test_ticks_are_round() -> None:
    assert even_ticks(0, 60) == [0, 10, 20, 30, 40, 50, 60]
    assert even_ticks(0, 0.3) == [0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3]
    assert log_ticks(10, 1000) == [10, 20, 50, 100, 200, 500, 1000]
    assert log_ticks(0.01, 10_000) == [0.01, 0.1, 1, 10, 100, 1000, 10_000]


@given(st.lists(st.floats(1e-3, 1e9), min_size=1, max_size=50), st.booleans(), st.booleans())
def test_the_ticks_of_an_axis_have_different_labels(values: list[float], is_log: bool, from_zero: bool) -> None:
    ticks = axis(values, 0, 100, is_log=is_log, from_zero=from_zero).ticks()
    assert len(set(labels(ticks))) == len(set(ticks))


def test_close_ticks_get_more_digits() -> None:
    assert labels([63.1201, 63.1202]) == ["63.1201", "63.1202"]
    assert labels([12_000_100, 12_000_200]) == ["12.0001M", "12.0002M"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.05, "0.05"), (2500, "2500"), (12_000, "12k"), (1_500_000, "1.5M"), (2e9, "2G")],
)
def test_a_ticks_number_is_short(value: float, text: str) -> None:
    assert number(value) == text


def test_a_line_goes_through_its_points_and_rests_where_there_is_none() -> None:
    svg = drawn(Line("a", [(0, 0), (1, 10), (2, None), (3, 5), (4, 10)]))
    (path,) = [p for p in svg.iter("path") if "line" in p.get("class", "")]
    left, right, bottom = plots.LEFT, plots.WIDTH - plots.RIGHT, 300 - plots.BOTTOM
    first, second = path.get("d", "").removeprefix("M").split("M")
    assert first.split("L")[0] == f"{left:.1f} {bottom:.1f}"
    assert second.split("L")[1] == f"{right:.1f} 12.0"


def test_a_point_alone_is_a_dot() -> None:
    svg = drawn(Line("a", [(0, 1), (1, None), (2, 3), (3, 4)]))
    assert len(list(svg.iter("circle"))) == 1


def test_it_says_in_words_what_it_shows() -> None:
    svg = drawn(Line("a", [(0, 0), (1, 1)]))
    assert svg.get("role") == "img"
    words = {element.get("id"): element.text for element in svg if element.tag in ("title", "desc")}
    assert [words[ident] for ident in svg.get("aria-labelledby", "").split()] == ["A title", "What is seen"]


def test_several_lines_have_a_key_each_and_one_has_none() -> None:
    lines = [Line(f"line number {i}", [(0, i), (1, i)], color=i, dash=i) for i in range(9)]
    keys = [t.text for t in drawn(*lines).iter("text") if t.get("class") == "key"]
    assert keys == [line.label for line in lines]
    assert not [t for t in drawn(lines[0]).iter("text") if t.get("class") == "key"]


def test_marks_stand_where_they_belong_and_not_outside() -> None:
    marks = [Mark(5, "in the middle", is_vertical=True), Mark(50, "far off", is_vertical=True), Mark(1, "top")]
    svg = drawn(Line("a", [(0, 0), (10, 1)]), marks=marks)
    words = [t.text for t in svg.iter("text") if "halo" in t.get("class", "")]
    assert words == ["in the middle", "top"]


def test_what_came_from_outside_is_text() -> None:
    text = draw(Plot("<b>", "&", "<x>", '"', [Line("</svg><script>", [(0, 1), (1, 2)]), Line("b", [(0, 1)])]), "p")
    assert "<script" not in text
    assert ElementTree.fromstring(text) is not None  # noqa: S314  # our own text
