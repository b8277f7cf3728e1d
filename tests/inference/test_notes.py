"""A note is cheap, and all that the worker needs."""

import msgspec
from tests.inference.bench import a_config
from tests.inference.making import a_principal
from tests.inference.spending import a_scope

from quarterdeck.inference.admission import Note
from quarterdeck.inference.calls import Operation
from quarterdeck.inference.counters import settle_words
from quarterdeck.inference.directory import Directory
from quarterdeck.inference.notes import NoteHeads, note_head, note_of
from quarterdeck.settings.limits import Limits

SERVED = Directory.of(a_config()).names["m"]
PRINCIPAL = a_principal(scopes=(a_scope("key:key_1", 5, limits=Limits(requests_per_minute=1)), a_scope("org", 5)))


def test_a_note_is_a_record_of_a_request_that_was_lost() -> None:
    head = note_head(PRINCIPAL, SERVED, Operation.CHAT)
    note = msgspec.json.decode(note_of(head, "req_1", 1_800_000_000.125, stream=True), type=Note)
    record = note.record
    assert (record.id, record.started, record.ended) == ("req_1", 1_800_000_000.125, 1_800_000_000.125)
    assert (record.status, record.stream, record.operation, record.model) == ("lost", True, "chat", "m")
    assert (record.org, record.team, record.key) == (PRINCIPAL.org, PRINCIPAL.team, PRINCIPAL.key)
    assert (record.price_input, record.price_output, record.cost) == (1, 2, 0)
    assert settle_words(record.org, note.scopes) == (PRINCIPAL.counters.settle_keys, PRINCIPAL.counters.plan)


def test_a_head_is_made_once_for_the_same_principal_and_model() -> None:
    heads = NoteHeads()
    head = heads.of(PRINCIPAL, SERVED, Operation.CHAT)
    assert heads.of(PRINCIPAL, SERVED, Operation.CHAT) is head
    assert heads.of(PRINCIPAL, SERVED, Operation.COMPLETIONS) != head
    changed = a_principal(name="renamed", scopes=PRINCIPAL.scopes)
    assert b"renamed" in heads.of(changed, SERVED, Operation.CHAT)
