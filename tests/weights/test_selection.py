"""Which files of a repository are downloaded."""

import pytest

from quarterdeck.weights.selection import has_weights, needed_files


@pytest.mark.parametrize(
    ("names", "left_out"),
    [
        (
            ["config.json", "model.safetensors", "pytorch_model.bin", "tf_model.h5"],
            {"pytorch_model.bin", "tf_model.h5"},
        ),
        (["config.json", "pytorch_model.bin", "tokenizer.model"], set()),
        (
            ["config.json", "a.safetensors", "onnx/model.onnx", "original/consolidated.00.pth"],
            {"onnx/model.onnx", "original/consolidated.00.pth"},
        ),
        (["config.json", "model-00001-of-00002.safetensors", "consolidated.safetensors"], {"consolidated.safetensors"}),
        (["params.json", "consolidated.safetensors"], set()),
        (["config.json", "model.safetensors", "1_Pooling/config.json", "2_Dense/model.safetensors"], set()),
        (["../x.json", "/etc/x.json", "config.json"], {"../x.json", "/etc/x.json"}),
        (
            ["config.json", "logo.png", ".gitattributes", "chat_template.jinja", "modeling_x.py"],
            {"logo.png", ".gitattributes"},
        ),
    ],
)
def test_one_format_is_chosen_and_small_files_are_kept(names: list[str], left_out: set[str]) -> None:
    assert needed_files(names) == [name for name in names if name not in left_out]


def test_a_model_has_a_configuration_and_weights() -> None:
    assert has_weights(["config.json", "model.safetensors"])
    assert not has_weights(["config.json", "model.gguf"])
    assert not has_weights(["model.safetensors"])
