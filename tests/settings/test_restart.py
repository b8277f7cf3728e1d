"""Which changes a reload can't apply."""

from typing import Annotated

from pydantic import BaseModel

from quarterdeck.settings.config import Config
from quarterdeck.settings.loading import parse
from quarterdeck.settings.restart import NeedsRestart, PendingChange, changes_needing_restart

CONFIG = """
models:
  - {name: chat, engine: {source: ./chat, context: 4096}}
  - {name: elsewhere, endpoints: [{url: "http://127.0.0.1:1"}]}
gateway: {retries: 0}
"""


class Section(BaseModel):
    bound: Annotated[int, NeedsRestart("gateway")] = 1
    live: int = 1


class Whole(BaseModel):
    section: Section = Section()


def changes(after: str, before: str = CONFIG) -> list[str]:
    return [change.setting for change in changes_needing_restart(parse(before), parse(after))]


def test_a_marked_field_is_named_with_its_path_and_process() -> None:
    found = changes_needing_restart(Whole(), Whole(section=Section(bound=2, live=2)))
    assert found == [PendingChange("section.bound", "gateway")]


def test_fields_that_a_reload_applies_are_not_named() -> None:
    assert changes_needing_restart(Whole(), Whole(section=Section(live=2))) == []
    assert changes(CONFIG.replace("retries: 0", "retries: 1, redis_timeout_seconds: 1")) == []


def test_engines_that_change_come_or_go_need_no_restart() -> None:
    assert changes(CONFIG.replace("4096", "8192")) == []
    more = CONFIG.replace("gateway:", "  - {name: new, engine: {source: ./new}}\ngateway:")
    assert changes(more) == changes(CONFIG, before=more) == []


def test_models_without_an_engine_come_and_go_and_move() -> None:
    without = CONFIG.replace('  - {name: elsewhere, endpoints: [{url: "http://127.0.0.1:1"}]}\n', "")
    assert changes(without) == changes(CONFIG, before=without) == []
    moved = Config(models=tuple(reversed(parse(CONFIG).models)))
    assert changes_needing_restart(parse(CONFIG), moved) == []
