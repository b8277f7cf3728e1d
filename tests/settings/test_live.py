"""The cell that holds the configuration in force."""

from quarterdeck.settings.live import Live


def test_a_replaced_value_is_current() -> None:
    cell = Live("old")
    assert cell.current == "old"
    cell.replace("new")
    assert cell.current == "new"


def test_a_selection_follows_its_cell_and_selections_follow_selections() -> None:
    cell = Live({"limits": {"rpm": 1}})
    limits = cell.select(lambda value: value["limits"])
    rpm = limits.select(lambda value: value["rpm"])
    cell.replace({"limits": {"rpm": 2}})
    assert (limits.current, rpm.current) == ({"rpm": 2}, 2)


def test_subscribers_run_in_order_and_see_the_new_value() -> None:
    cell = Live(1)
    seen: list[tuple[str, int, int]] = []
    cell.subscribe(lambda value: seen.append(("first", value, cell.current)))
    cell.subscribe(lambda value: seen.append(("second", value, cell.current)))
    cell.replace(2)
    assert seen == [("first", 2, 2), ("second", 2, 2)]
