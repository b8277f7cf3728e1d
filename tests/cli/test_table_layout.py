"""Tables on terminals of every width."""

from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.cli.table_layout import GAP, lay_out, text_width, wrapped

KEYS_HEAD = ("ID", "NAME", "TEAM", "BUDGET", "CREATED", "STATE")
KEY_ROW = ("key_cb596c325baecf31cd64e3fe", "notebook", "retrieval", "$5 per month", "2026-11-30 10:06", "valid, admin")
OPTIONAL = ("CREATED", "BUDGET", "TEAM")
CELLS = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")) | st.just(" "), max_size=60)


def test_a_wide_terminal_shows_all_columns_whole() -> None:
    for room in (None, 200):
        found = lay_out(KEYS_HEAD, [KEY_ROW], room, OPTIONAL)
        assert (found.head, found.rows, found.hidden) == (KEYS_HEAD, [[KEY_ROW]], ())


def test_optional_columns_are_left_out_in_their_order() -> None:
    assert lay_out(KEYS_HEAD, [KEY_ROW], 90, OPTIONAL).hidden == ("CREATED",)
    found = lay_out(KEYS_HEAD, [KEY_ROW], 60, OPTIONAL)
    assert found.hidden == OPTIONAL
    assert found.rows == [[(KEY_ROW[0], "notebook", "valid, admin")]]


def test_an_empty_column_is_left_out_first() -> None:
    row = (*KEY_ROW[:3], "-", *KEY_ROW[4:])
    assert lay_out(KEYS_HEAD, [row], 86, OPTIONAL).hidden == ("BUDGET",)


def test_the_last_column_is_wrapped_at_words() -> None:
    found = lay_out(("MODEL", "DETAIL"), [("chat", "does not fit: needs 5.1 GB, 2.3 GB are free")], 32)
    assert found.rows == [[("chat", "does not fit: needs 5.1"), ("", "GB, 2.3 GB are free")]]


def test_the_column_that_names_the_row_is_cut_last() -> None:
    row = ("smollm2-135m-instruct", "Qwen/Qwen2.5-0.5B-Instruct", "ready")
    assert lay_out(("MODEL", "SOURCE", "STATE"), [row], 45).rows == [[(row[0], "Qwen/Qwen2.5-0…", "ready")]]
    assert lay_out(("MODEL", "SOURCE", "STATE"), [row], 35).rows == [[("smollm2-135m-…", "Qwen/Qwen2.…", "ready")]]


def test_wide_characters_count_twice() -> None:
    assert wrapped("日本語 text", 6) == ["日本語", "text"]
    assert wrapped("日本語", 4) == ["日本", "語"]


@given(
    rows=st.integers(1, 6).flatmap(
        lambda width: st.lists(st.lists(CELLS, min_size=width, max_size=width), min_size=1, max_size=4)
    ),
    room=st.integers(24, 220),
    dropped=st.integers(0, 5),
)
def test_no_line_is_longer_than_the_terminal(rows: list[list[str]], room: int, dropped: int) -> None:
    head = [f"HEAD{at}" for at in range(len(rows[0]))]
    found = lay_out(head, rows, room, head[1 : 1 + dropped])
    for line in [found.head, *(line for row in found.rows for line in row)]:
        assert sum(map(text_width, line)) + GAP * (len(line) - 1) <= room
        assert all(text_width(cell) <= width for cell, width in zip(line, found.widths, strict=True))


@given(text=CELLS, width=st.integers(2, 40))
def test_wrapping_loses_only_spaces(text: str, width: int) -> None:
    lines = wrapped(text, width)
    assert all(text_width(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
