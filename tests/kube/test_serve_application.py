"""The arguments of a Serve application."""

import pytest
from pydantic import ValidationError

from quarterdeck.kube.serve_application import ASGIAppSource, ServeArguments
from quarterdeck.settings.engine import EngineConfig


def test_arguments_survive_json_and_members_of_a_newer_operator_are_ignored() -> None:
    given = ServeArguments(model="org/m", engine=EngineConfig(source="org/m", args={"max_num_seqs": 8}))
    assert ServeArguments.model_validate({**given.model_dump(mode="json"), "later": 1}) == given


@pytest.mark.parametrize(
    "engines", [{}, {"engine": EngineConfig(source="org/m"), "app": ASGIAppSource(factory="a:b")}], ids=["none", "two"]
)
def test_there_is_exactly_one_engine(engines: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="one of engine and app"):
        ServeArguments.model_validate({"model": "m", **engines})
