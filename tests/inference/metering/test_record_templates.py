"""Records and notes made from templates."""

import msgspec
from tests.accounting.spending import a_scope
from tests.inference.bench import a_config
from tests.inference.making import a_principal

from quarterdeck.accounting.commit import Note
from quarterdeck.accounting.scopes import settle_arguments
from quarterdeck.inference.call import Operation
from quarterdeck.inference.metering.record_templates import RecordTemplate, RecordTemplates
from quarterdeck.inference.routing.directory import Directory
from quarterdeck.settings.limits import Limits

SERVED = Directory.of(a_config()).names["m"]
PRINCIPAL = a_principal(scopes=(a_scope("key:key_1", 5, limits=Limits(requests_per_minute=1)), a_scope("org", 5)))


def test_a_note_is_a_record_of_a_request_that_was_lost() -> None:
    template = RecordTemplate(PRINCIPAL, SERVED, Operation.CHAT)
    note = msgspec.json.decode(template.note("req_1", 1_800_000_000.125, stream=True), type=Note)
    record = note.record
    assert (record.id, record.started, record.ended) == ("req_1", 1_800_000_000.125, 1_800_000_000.125)
    assert (record.status, record.stream, record.operation, record.model) == ("lost", True, "chat", "m")
    assert (record.org, record.team, record.key) == (PRINCIPAL.org, PRINCIPAL.team, PRINCIPAL.key)
    assert (record.price_input, record.price_output, record.cost) == (1, 2, 0)
    assert settle_arguments(record.org, note.scopes) == (
        PRINCIPAL.scope_set.settle_keys,
        PRINCIPAL.scope_set.settle_plan,
    )


def test_every_record_is_its_own() -> None:
    template = RecordTemplate(PRINCIPAL, SERVED, Operation.CHAT)
    first, second = template.record(), template.record()
    first.id = "req_1"
    assert (first.id, second.id, template.record().id) == ("req_1", "", "")
    assert (first.key_name, first.priority, first.price_version) == (PRINCIPAL.name, 0, SERVED.price_version)


def test_a_template_is_made_once_for_the_same_principal_and_model() -> None:
    templates = RecordTemplates()
    template = templates.get(PRINCIPAL, SERVED, Operation.CHAT)
    assert templates.get(PRINCIPAL, SERVED, Operation.CHAT) is template
    assert templates.get(PRINCIPAL, SERVED, Operation.COMPLETIONS) is not template
    changed = a_principal(name="renamed", scopes=PRINCIPAL.scopes)
    assert b"renamed" in templates.get(changed, SERVED, Operation.CHAT).note("req_1", 0.0)
