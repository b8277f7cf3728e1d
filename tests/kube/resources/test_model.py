import pytest

from quarterdeck.kube.resources.model import Model
from quarterdeck.kube.resources.object import InvalidObjectError


def test_an_object_is_read_as_the_api_returns_it() -> None:
    model = Model.parse(
        {
            "apiVersion": "quarterdeck.dev/v1alpha1",
            "kind": "Model",
            "metadata": {
                "name": "llama",
                "uid": "u",
                "managedFields": [{}],
                "creationTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": {"source": {"uri": "org/name"}, "price": {"cachedInput": "0.1"}},
            "status": {"observedGeneration": 3, "fieldOfANewerOperator": 1},
        }
    )
    assert (model.served_name, model.status.observed_generation) == ("llama", 3)
    assert str(model.spec.price.cached_input) == "0.1"


def test_a_status_of_another_version_does_not_make_the_object_unreadable() -> None:
    data = {"metadata": {"name": "llama"}, "spec": {"source": {"uri": "org/name"}}, "status": {"state": "Sleeping"}}
    model = Model.parse(data)
    assert model.spec.source is not None and model.status.state is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"metadata": {"name": "a"}}, "spec: Field required"),
        ({"metadata": {"name": "a"}, "spec": {"nonsense": 1}}, "spec.nonsense: unknown field"),
        ({"metadata": {"name": "a"}, "spec": {"served_name": "b"}}, "spec.served_name: unknown field"),
    ],
)
def test_what_cant_be_read_is_named_in_one_line(data: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidObjectError) as error:
        Model.parse(data)
    assert str(error.value) == message
