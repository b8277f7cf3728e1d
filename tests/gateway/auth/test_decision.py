"""Decisions on a key depend on its row and the time only."""

from dataclasses import replace

import pytest
from tests.gateway.fakes import config, key_row

from quarterdeck.accounting.principal import Principal
from quarterdeck.gateway.auth.decision import EXPIRED, REPLACED, REVOKED, Fault, decide, fault_of
from quarterdeck.store.keys import KeyRow

ROW = replace(key_row(id="key_1"), digest="d")


def test_a_valid_key_is_a_principal_of_the_revision() -> None:
    decision = decide(ROW, config(), 1000.0, revision=7, digest="d")
    assert isinstance(decision, Principal)
    assert (decision.key, decision.revision) == ("key_1", 7)


@pytest.mark.parametrize(
    ("row", "digest", "fault"),
    [
        (ROW, "another", REPLACED),
        (replace(ROW, revoked=1.0), "d", REVOKED),
        (replace(ROW, revoked=1.0, expires=1.0), None, REVOKED),
        (replace(ROW, expires=1000.0), "d", EXPIRED),
        (replace(ROW, expires=1000.1), "d", None),
    ],
)
def test_a_key_is_refused_for_one_reason(row: KeyRow, digest: str | None, fault: Fault | None) -> None:
    assert fault_of(row, 1000.0, digest=digest) is fault
    decision = decide(row, config(), 1000.0, revision=0, digest=digest)
    assert decision is fault if fault else isinstance(decision, Principal)
