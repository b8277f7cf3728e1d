import pytest

from quarterdeck.kube.compiled import Documents, EngineEntry, EngineIndex, from_config_map, to_config_map


def test_an_index_survives_its_encoding() -> None:
    index = EngineIndex(engines={"llama": EngineEntry(object="llama", model="llama", max_running=8, state="Zero")})
    assert EngineIndex.decode(index.encode()) == index


def test_a_state_of_a_newer_operator_is_read_as_starting() -> None:
    index = EngineIndex.decode('{"engines": {"a": {"object": "a", "model": "a", "state": "Napping", "mood": 1}}}')
    assert index.engines["a"].state == "Starting"


def test_an_index_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"engines\.json is invalid"):
        EngineIndex.decode("[]")


@pytest.mark.parametrize("size", [10, 800_000])
def test_documents_survive_the_config_map(size: int) -> None:
    documents = Documents(config="a" * size, engines="{}")
    config_map = to_config_map(documents)
    assert ("binaryData" in config_map) == (size > 700_000)
    assert from_config_map(config_map) == documents
    assert to_config_map(documents) == config_map


@pytest.mark.parametrize("config_map", [{}, {"data": None}, {"binaryData": {"quarterdeck.yaml.gz": "AAAA"}}])
def test_a_config_map_without_readable_documents_is_refused(config_map: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"quarterdeck\.yaml"):
        from_config_map(config_map)
