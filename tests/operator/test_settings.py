"""The operator's configuration: read, or refused in one line."""

from pathlib import Path

import pytest

from quarterdeck.operator.settings import OperatorConfig, OperatorSettings, read_config


def test_the_namespace_is_required_outside_a_pod() -> None:
    with pytest.raises(ValueError, match="QUARTERDECK_NAMESPACE is not set"):
        OperatorSettings.read({})


def test_variables_are_read() -> None:
    found = OperatorSettings.read({"QUARTERDECK_NAMESPACE": "llm", "POD_NAME": "op-1", "QUARTERDECK_HOST": "0.0.0.0"})
    assert (found.namespace, found.identity, found.host, found.port) == ("llm", "op-1", "0.0.0.0", 8013)
    assert found.config == OperatorConfig()


@pytest.mark.parametrize("port", ["tcp://10.96.0.1:8013", "x", "99999"])
def test_a_service_link_is_no_port_and_the_message_says_so(port: str) -> None:
    with pytest.raises(ValueError, match=f"'{port}' is not a port") as error:
        OperatorSettings.read({"QUARTERDECK_NAMESPACE": "llm", "QUARTERDECK_OPERATOR_PORT": port})
    assert ("enableServiceLinks" in str(error.value)) == port.startswith("tcp")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("images: {simm: x}", "images.simm: Extra inputs are not permitted"),
        ("accelerators: {l4: {memoryGiB: 24}}", "accelerators.l4.memoryGiB"),
        ("a: [", "while parsing"),
        ("[]", "Input should be"),
    ],
)
def test_a_wrong_file_is_refused_by_its_field(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "operator.yaml"
    path.write_text(text)
    with pytest.raises(ValueError) as error:
        read_config(path)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_the_file_is_in_camel_case(tmp_path: Path) -> None:
    path = tmp_path / "operator.yaml"
    path.write_text("gatewayService: gw\nscaling: {downSeconds: 5}\naccelerators: {l4: {runtimeClass: nvidia}}")
    found = read_config(path)
    assert (found.gateway_service, found.scaling.down_seconds) == ("gw", 5)
    assert found.accelerators["l4"].runtime_class == "nvidia"
