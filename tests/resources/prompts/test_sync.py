"""Laws of the plan, from any state of both sides: applied twice it changes nothing, no version is lost, and without
conflicts both sides become equal."""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quarterdeck.resources.prompts.sync import (
    Conflict,
    Copy,
    Detach,
    Establish,
    Ignore,
    Link,
    Mode,
    Ours,
    Pair,
    Plan,
    Remember,
    SetLabel,
    Side,
    Theirs,
    Unpair,
    Version,
    make_plan,
    source_of,
)


@dataclass
class World:
    """Both sides: the text of each version by its number, and labels."""

    ours: dict[int, str] | None
    theirs: dict[int, str] | None
    here: dict[str, int] = field(default_factory=dict)
    there: dict[str, int] = field(default_factory=dict)
    link: Link | None = None
    is_detached: bool = False

    def plan(self, mode: Mode, keep: Side | None = None) -> Plan:
        if self.is_detached:
            return Plan()
        ours = None if self.ours is None else Ours({n: _version(t) for n, t in self.ours.items()}, dict(self.here))
        theirs = None if self.theirs is None else Theirs({n: _version(t) for n, t in self.theirs.items()}, self.there)
        return make_plan(ours, theirs, self.link, mode, keep)

    def carry_out(self, plan: Plan) -> None:
        for action in plan.actions:
            self.link = link = self.link or Link()
            if isinstance(action, Establish):
                self.link = replace(link, origin=action.origin)
            elif isinstance(action, Pair):
                self._pair(action.theirs, action.ours)
            elif isinstance(action, Unpair):
                self.link = replace(link, pairs={t: o for t, o in link.pairs.items() if t != action.theirs})
            elif isinstance(action, Ignore):
                self.link = replace(link, ignored=link.ignored | {action.version})
            elif isinstance(action, Copy):
                self._copy(*action.version)
            elif isinstance(action, Remember):
                self._agree(action.label, action.ours)
            elif isinstance(action, SetLabel):
                self._label(action)
            elif isinstance(action, Detach):
                self.is_detached = True

    def _pair(self, theirs: int, ours: int) -> None:
        assert self.link is not None
        self.link = replace(self.link, pairs={**self.link.pairs, theirs: ours})

    def _copy(self, side: Side, number: int) -> None:
        if side == "ours":
            assert self.ours is not None
            self.theirs = self.theirs or {}
            made = max(self.theirs, default=0) + 1
            self.theirs[made] = self.ours[number]
            self._pair(made, number)
            return
        assert self.theirs is not None
        self.ours = self.ours or {}
        newest = max(self.ours, default=0)
        if not newest or self.ours[newest] != self.theirs[number]:  # equal content makes no version here
            newest += 1
            self.ours[newest] = self.theirs[number]
        self._pair(number, newest)

    def _agree(self, label: str, ours: int | None) -> None:
        assert self.link is not None
        labels = {name: number for name, number in self.link.labels.items() if name != label}
        self.link = replace(self.link, labels=labels if ours is None else labels | {label: ours})

    def _label(self, action: SetLabel) -> None:
        assert self.link is not None
        if action.version is None:
            assert action.side == "ours"
            del self.here[action.label]
            self._agree(action.label, None)
            return
        side, number = action.version
        ours = number if side == "ours" else self.link.pairs[number]
        if action.side == "ours":
            assert self.ours is not None and ours in self.ours
            self.here[action.label] = ours
        else:
            assert self.theirs is not None
            self.there[action.label] = max(t for t, o in self.link.pairs.items() if o == ours and t in self.theirs)
        self._agree(action.label, ours)

    def texts(self) -> tuple[set[str], set[str]]:
        return set((self.ours or {}).values()), set((self.theirs or {}).values())

    def labelled(self) -> tuple[dict[str, str], dict[str, str]]:
        ours, theirs = self.ours or {}, self.theirs or {}
        return {n: ours[v] for n, v in self.here.items()}, {n: theirs[v] for n, v in self.there.items()}


def _version(text: str) -> Version:
    """A text with a `!` can't be on the other side."""
    return Version(frozenset({text}), "it can't" if "!" in text else "")


texts = st.sampled_from(["a", "b", "c", "d!"])
modes = st.sampled_from(["pull", "push", "both"])
keeps = st.sampled_from([None, "ours", "theirs"])


@st.composite
def sides(draw: st.DrawFn) -> tuple[dict[int, str] | None, dict[str, int]]:
    versions = draw(st.none() | st.lists(texts, min_size=1, max_size=4))
    if versions is None:
        return None, {}
    numbered = dict(enumerate(versions, draw(st.integers(1, 3))))
    labels = draw(st.dictionaries(st.sampled_from(["x", "y"]), st.sampled_from(sorted(numbered)), max_size=2))
    return numbered, labels


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Two sides that never met; or that did, and changed since."""
    (ours, here), (theirs, there) = draw(sides()), draw(sides())
    world = World(ours, theirs, here, there)
    for _ in range(draw(st.integers(0, 2))):
        world.carry_out(world.plan(draw(modes), draw(keeps)))
        for _ in range(draw(st.integers(0, 3))):
            _change(draw, world)
    return world


def _change(draw: st.DrawFn, world: World) -> None:
    side = draw(st.sampled_from(["ours", "theirs"]))
    versions, labels = (world.ours, world.here) if side == "ours" else (world.theirs, world.there)
    what = draw(st.sampled_from(["version", "label", "unlabel", "delete", "delete version"]))
    if what == "delete" and draw(st.booleans()):
        labels.clear()
        if side == "ours":
            world.ours = None
        else:
            world.theirs = None
    elif not versions:
        return
    elif what == "version":
        versions[max(versions) + 1] = draw(texts)
    elif what == "label":
        labels[draw(st.sampled_from(["x", "y"]))] = draw(st.sampled_from(sorted(versions)))
    elif what == "unlabel" and labels:
        del labels[draw(st.sampled_from(sorted(labels)))]
    elif what == "delete version" and side == "theirs" and len(versions) > 1:
        number = draw(st.sampled_from(sorted(versions)[:-1]))  # the number of the newest would be used again
        del versions[number]
        for label in [name for name, at in labels.items() if at == number]:
            del labels[label]


@settings(max_examples=120)
@given(worlds(), modes, keeps)
def test_a_plan_that_was_carried_out_leaves_nothing_to_do(world: World, mode: Mode, keep: Side | None) -> None:
    plan = world.plan(mode, keep)
    world.carry_out(plan)
    after = world.plan(mode)
    assert after.actions == ()
    if keep is not None and not plan.notes:
        assert [each for each in after.conflicts if each.kind != "deleted"] == []


@settings(max_examples=120)
@given(worlds(), modes, keeps)
def test_no_version_is_lost_and_no_number_changes(world: World, mode: Mode, keep: Side | None) -> None:
    ours, theirs = dict(world.ours or {}), dict(world.theirs or {})
    world.carry_out(world.plan(mode, keep))
    assert ours.items() <= (world.ours or {}).items()
    assert theirs.items() <= (world.theirs or {}).items()


def test_a_prompt_that_is_created_again_remembers_no_label_of_the_deleted_one() -> None:
    link = Link(origin="theirs", pairs={1: 1}, ignored=frozenset(), labels={"x": 1})
    world = World(ours={1: "a"}, theirs=None, link=link)
    world.carry_out(world.plan("pull", "ours"))
    assert world.theirs == {1: "a"}
    assert world.plan("pull").actions == ()


@settings(max_examples=120)
@given(worlds(), modes)
def test_without_conflicts_and_reasons_the_sides_become_equal(world: World, mode: Mode) -> None:
    plan = world.plan(mode)
    is_new = world.link is None
    world.carry_out(plan)
    link = world.link
    if plan.conflicts or plan.notes or not is_new or link is None or link.origin is None:
        return
    ours, theirs = world.texts()
    source = source_of(mode, link.origin)
    assert (theirs if source == "theirs" else ours) <= (ours if source == "theirs" else theirs)
    here, there = world.labelled()
    assert (there.items() <= here.items()) if source == "theirs" else (here.items() <= there.items())


@settings(max_examples=120)
@given(worlds(), modes)
def test_the_side_that_is_not_the_source_keeps_what_it_changed(world: World, mode: Mode) -> None:
    link = world.link
    if link is None or link.origin is None:
        return
    is_theirs = source_of(mode, link.origin) == "theirs"
    pairs = link.pairs
    before = dict(world.here) if is_theirs else {n: pairs.get(v, -v) for n, v in world.there.items()}
    world.carry_out(world.plan(mode))
    after = world.here if is_theirs else {n: pairs.get(v, -v) for n, v in world.there.items()}
    for label, number in before.items():
        if number != link.labels.get(label):
            assert after.get(label) == number


def test_a_conflict_names_the_label_and_both_versions() -> None:
    link = Link("theirs", {1: 1, 2: 2, 3: 3}, frozenset(), {"production": 1})
    three = {n: Version() for n in (1, 2, 3)}
    plan = make_plan(Ours(three, {"production": 3}), Theirs(three, {"production": 2}), link, "both")
    message = "the label production is at version 3 here and is at version 2 at Langfuse: both sides changed it"
    assert plan == Plan(conflicts=(Conflict("label", "production", message),))


def test_a_label_that_only_the_other_side_has_is_its_own() -> None:
    link = Link("theirs", {1: 1})
    plan = make_plan(Ours({1: Version()}, {"mine": 1}), Theirs({1: Version()}), link, "both")
    assert plan == Plan()


@pytest.mark.parametrize("mode", ["pull", "push"])
def test_a_prompt_of_the_side_that_nothing_is_taken_from_is_left_alone(mode: Mode) -> None:
    one = {1: _version("a")}
    ours, theirs = (Ours(one), None) if mode == "pull" else (None, Theirs(one))
    assert make_plan(ours, theirs, None, mode) == Plan()


def test_versions_that_cannot_be_mapped_are_named_with_the_reason() -> None:
    plan = make_plan(None, Theirs({1: _version("a"), 2: _version("b!")}, {"x": 2}), None, "both")
    assert plan.actions == (Establish("theirs"), Copy(("theirs", 1)))
    assert plan.notes == (
        "version 2 at Langfuse can't be here: it can't",
        "the label x stays: this platform does not have Langfuse's version 2",
    )
