"""What a synchronisation of one prompt with Langfuse does: both sides and what was synchronised before, to actions and
conflicts. Pure.

Versions are immutable and only ever added. A label is compared with where it stood after the last synchronisation. What
changed on the source's side alone is carried over; what changed on the other side is a conflict, which stays until
somebody keeps one of both. Nothing is deleted but labels of ours that were deleted at Langfuse.

Versions of both sides that are equal are paired, never made again: a worker that died after it had made one, and before
it had recorded that, finds it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

Side = Literal["ours", "theirs"]
Mode = Literal["pull", "push", "both"]
Ref = tuple[Side, int]
"""A version by the number that it has on this side."""


@dataclass(frozen=True, slots=True)
class Version:
    """A version on one side. Two that share a key are equal."""

    keys: frozenset[str] = frozenset()
    """Only needed of versions without a pair."""
    problem: str = ""
    """Why the other side can't have it."""


@dataclass(frozen=True, slots=True)
class Ours:
    """The prompt here."""

    versions: Mapping[int, Version] = field(default_factory=dict)
    labels: Mapping[str, int | None] = field(default_factory=dict)
    """The version of each label; None: it is split."""
    is_archived: bool = False


@dataclass(frozen=True, slots=True)
class Theirs:
    """The prompt at Langfuse; without its label `latest`."""

    versions: Mapping[int, Version] = field(default_factory=dict)
    labels: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Link:
    """What was synchronised before."""

    origin: Side | None = None
    """Where the prompt was first created. None: both sides have one of this name, and nothing was decided."""
    pairs: Mapping[int, int] = field(default_factory=dict)
    """Our number of each of their versions."""
    ignored: frozenset[Ref] = frozenset()
    """Versions that stay on their side."""
    labels: Mapping[str, int] = field(default_factory=dict)
    """Where labels stood on both sides, by our number."""


@dataclass(frozen=True, slots=True)
class Establish:
    """The prompt is synchronised from now on."""

    origin: Side


@dataclass(frozen=True, slots=True)
class Pair:
    theirs: int
    ours: int


@dataclass(frozen=True, slots=True)
class Unpair:
    theirs: int


@dataclass(frozen=True, slots=True)
class Ignore:
    version: Ref


@dataclass(frozen=True, slots=True)
class Copy:
    """Create the version on the other side, and pair both."""

    version: Ref


@dataclass(frozen=True, slots=True)
class SetLabel:
    """Point the label of this side at a version, and remember it. None: delete it."""

    side: Side
    label: str
    version: Ref | None


@dataclass(frozen=True, slots=True)
class Remember:
    """Both sides agree on a label. None: that it does not exist."""

    label: str
    ours: int | None


@dataclass(frozen=True, slots=True)
class Detach:
    """The prompt is not synchronised any more."""


Action = Establish | Pair | Unpair | Ignore | Copy | SetLabel | Remember | Detach


@dataclass(frozen=True, slots=True)
class Conflict:
    """Something that the synchronisation leaves as it is until one side is kept."""

    kind: Literal["name", "version", "label", "deleted"]
    subject: str
    """The label, or the version as `ours 3` or `theirs 4`; empty: the prompt."""
    message: str


@dataclass(frozen=True, slots=True)
class Plan:
    actions: tuple[Action, ...] = ()
    """In order."""
    conflicts: tuple[Conflict, ...] = ()
    notes: tuple[str, ...] = ()
    """What can't be synchronised, and why."""


def make_plan(
    ours: Ours | None, theirs: Theirs | None, link: Link | None, mode: Mode, keep: Side | None = None
) -> Plan:
    """`keep`: the side that wins all conflicts this time."""
    link = link or Link()
    is_established = bool(link.pairs or link.ignored)
    if ours is None and theirs is None:
        return Plan((Detach(),) if link.origin else ())
    if is_established and (ours is None or theirs is None):
        gone: Side = "ours" if ours is None else "theirs"
        if keep is None:
            return Plan(conflicts=(_deleted(gone),))
        if keep == gone:
            return Plan((Detach(),))
    origin = link.origin or _origin(ours, theirs, mode, keep)
    if origin is None:
        if ours is None or theirs is None:
            return Plan()  # it exists where nothing is taken from
        message = "both sides have a prompt of this name, with different versions"
        return Plan(conflicts=(Conflict("name", "", message),))
    first: list[Action] = [] if link.origin else [Establish(origin)]
    source = source_of(mode, origin)
    if is_established and keep is not None and (ours is None or theirs is None):
        # It is created again on the side that deleted it, whatever that side's labels were.
        first += [Remember(label, None) for label in sorted(link.labels)]
        source, link = keep, replace(link, labels={})
    return _Planner(ours or Ours(), theirs or Theirs(), link, source, keep).plan(first)


def source_of(mode: Mode, origin: Side) -> Side:
    return {"pull": "theirs", "push": "ours", "both": origin}[mode]  # type: ignore[return-value]  # of literals


def _origin(ours: Ours | None, theirs: Theirs | None, mode: Mode, keep: Side | None) -> Side | None:
    """Where a prompt without a link comes from. None: can't be told, or nothing is taken from there."""
    if theirs is None:
        return None if mode == "pull" else "ours"
    if ours is None:
        return None if mode == "push" else "theirs"
    if keep is not None:
        return keep
    if mode != "pull" and _are_all_in(theirs.versions, ours.versions):
        return "ours"
    if mode != "push" and _are_all_in(ours.versions, theirs.versions):
        return "theirs"
    return None


def _are_all_in(some: Mapping[int, Version], others: Mapping[int, Version]) -> bool:
    keys = frozenset[str]().union(*(each.keys for each in others.values()))
    return all(each.keys & keys for each in some.values())


def _deleted(gone: Side) -> Conflict:
    where, other = ("here", "at Langfuse") if gone == "ours" else ("at Langfuse", "here")
    return Conflict("deleted", "", f"the prompt was deleted {where} and still exists {other}")


class _Planner:
    """`source`: the side whose changes are carried over."""

    def __init__(self, ours: Ours, theirs: Theirs, link: Link, source: Side, keep: Side | None) -> None:
        self._ours = ours
        self._theirs = theirs
        self._link = link
        self._source = source
        self._keep = keep
        self._pairs = dict(link.pairs)
        self._actions: list[Action] = []
        self._conflicts: list[Conflict] = []
        self._notes: list[str] = []
        self._copied: set[Ref] = set()

    def plan(self, first: list[Action]) -> Plan:
        self._actions += first
        self._forget_what_is_gone()
        self._pair_equal_versions()
        for number in sorted(self._theirs.versions):
            self._plan_version(("theirs", number), self._theirs.versions[number])
        paired = set(self._pairs.values())
        for number in sorted(self._ours.versions):
            if number not in paired:
                self._plan_version(("ours", number), self._ours.versions[number])
        for label in sorted({*self._link.labels, *self._ours.labels, *self._theirs.labels}):
            self._plan_label(label)
        return Plan(tuple(self._actions), tuple(self._conflicts), tuple(self._notes))

    def _forget_what_is_gone(self) -> None:
        """A side that is kept gets its versions copied again where the other side deleted them."""
        for number, ours in self._link.pairs.items():
            is_kept = (self._keep == "ours" and number not in self._theirs.versions) or (
                self._keep == "theirs" and ours not in self._ours.versions
            )
            if is_kept:
                del self._pairs[number]
                self._actions.append(Unpair(number))

    def _pair_equal_versions(self) -> None:
        paired = set(self._pairs.values())
        free = [n for n in sorted(self._ours.versions) if n not in paired and ("ours", n) not in self._link.ignored]
        every = sorted(self._ours.versions, reverse=True)
        for number in sorted(self._theirs.versions):
            if number in self._pairs or ("theirs", number) in self._link.ignored:
                continue
            keys = self._theirs.versions[number].keys
            found = next((n for n in free if keys & self._ours.versions[n].keys), None)
            if found is not None:
                free.remove(found)
            elif self._source == "ours":  # the copy of a copy
                found = next((n for n in every if keys & self._ours.versions[n].keys), None)
            if found is not None:
                self._pairs[number] = found
                self._actions.append(Pair(number, found))

    def _plan_version(self, ref: Ref, version: Version) -> None:
        side, number = ref
        if ref in self._link.ignored or (side == "theirs" and number in self._pairs):
            return
        where, other = ("here", "at Langfuse") if side == "ours" else ("at Langfuse", "here")
        if side == self._source or side == self._keep:
            if version.problem:
                self._notes.append(f"version {number} {where} can't be {other}: {version.problem}")
                if side != self._source:  # decided, as far as it can be
                    self._actions.append(Ignore(ref))
            elif side == "theirs" and self._ours.is_archived:
                self._notes.append(f"version {number} {where} is not taken: the prompt is archived here")
            else:
                self._copied.add(ref)
                self._actions.append(Copy(ref))
        elif self._keep is not None:
            self._actions.append(Ignore(ref))
        else:
            message = f"version {number} was created {where}, and the source of this prompt is {_name(self._source)}"
            self._conflicts.append(Conflict("version", f"{side} {number}", message))

    def _plan_label(self, label: str) -> None:
        base = self._ref_of_ours(self._link.labels.get(label))
        is_split = label in self._ours.labels and self._ours.labels[label] is None
        ours = self._ref_of_ours(self._ours.labels.get(label))
        theirs = self._ref_of_theirs(self._theirs.labels.get(label))
        if is_split:
            self._plan_split(label, theirs, base)
            return
        if ours == theirs:
            if ours != base:
                self._actions.append(Remember(label, self._ours.labels.get(label)))
            return
        by_side: dict[Side, Ref | None] = {"ours": ours, "theirs": theirs}
        if by_side[self._source] is None and base is None:
            return  # a label of the other side alone
        is_conflict = by_side[_other(self._source)] != base
        if is_conflict and self._keep is None:
            self._conflicts.append(Conflict("label", label, self._label_message(label)))
            return
        winner = self._keep if is_conflict and self._keep is not None else self._source
        self._set_label(label, winner, by_side[winner])

    def _plan_split(self, label: str, theirs: Ref | None, base: Ref | None) -> None:
        """A split has no equal at Langfuse: its label stays where it is, until the split ends."""
        if theirs is None and base is None and self._source == "theirs":
            return
        is_conflict = theirs != base and self._source == "theirs"
        if is_conflict and self._keep is None:
            message = f"the label {label} is split here and was moved at Langfuse"
            self._conflicts.append(Conflict("label", label, message))
        elif is_conflict and self._keep == "theirs":
            self._set_label(label, "theirs", theirs)
        else:
            if is_conflict:
                self._actions.append(Remember(label, theirs[1] if theirs is not None and theirs[0] == "ours" else None))
            self._notes.append(f"the label {label} is split here: Langfuse's stays where it is meanwhile")

    def _set_label(self, label: str, source: Side, version: Ref | None) -> None:
        side: Side = "theirs" if source == "ours" else "ours"
        if side == "ours" and self._ours.is_archived:
            self._notes.append(f"the label {label} stays: the prompt is archived here")
        elif version is None and side == "theirs":
            self._notes.append(f"the label {label} was deleted here; Langfuse's API can't remove it there")
        elif version is not None and not self._is_on(side, version):
            self._notes.append(f"the label {label} stays: {_name(side)} does not have {_words(version)}")
        else:
            self._actions.append(SetLabel(side, label, version))

    def _is_on(self, side: Side, version: Ref) -> bool:
        """Whether the side has the version, or will."""
        if version[0] == "theirs":  # without a pair
            return version in self._copied
        if side == "ours":
            return version[1] in self._ours.versions
        has = any(n in self._theirs.versions and ours == version[1] for n, ours in self._pairs.items())
        return has or version in self._copied

    def _ref_of_ours(self, number: int | None) -> Ref | None:
        return None if number is None else ("ours", number)

    def _ref_of_theirs(self, number: int | None) -> Ref | None:
        if number is None:
            return None
        return ("ours", self._pairs[number]) if number in self._pairs else ("theirs", number)

    def _label_message(self, label: str) -> str:
        here, there = self._ours.labels.get(label), self._theirs.labels.get(label)
        at_here = "is not here" if here is None else f"is at version {here} here"
        at_there = "is not at Langfuse" if there is None else f"is at version {there} at Langfuse"
        moved = "both sides changed it" if self._source_changed(label) else f"{_name(_other(self._source))} changed it"
        return f"the label {label} {at_here} and {at_there}: {moved}"

    def _source_changed(self, label: str) -> bool:
        base = self._ref_of_ours(self._link.labels.get(label))
        ours = self._ref_of_ours(self._ours.labels.get(label))
        theirs = self._ref_of_theirs(self._theirs.labels.get(label))
        return (ours if self._source == "ours" else theirs) != base


def numbers_of(pairs: Mapping[int, int], versions: Mapping[int, Version]) -> Iterator[tuple[int, int]]:
    """Our numbers with theirs: of several that are equal, the newest that exists."""
    newest: dict[int, int] = {}
    for theirs, ours in pairs.items():
        if theirs in versions:
            newest[ours] = max(theirs, newest.get(ours, 0))
    yield from newest.items()


def _other(side: Side) -> Side:
    return "theirs" if side == "ours" else "ours"


def _name(side: Side) -> str:
    return "this platform" if side == "ours" else "Langfuse"


def _words(version: Ref) -> str:
    return f"version {version[1]}" if version[0] == "ours" else f"Langfuse's version {version[1]}"
