"""What should run, and the names of its processes."""

from tests.model_lifecycle.fake_runtime import models

from quarterdeck.model_lifecycle.desired import app_name, app_prefix, changed, desired_models, slug
from quarterdeck.settings.models import ModelConfig


def test_a_name_is_safe_in_a_path_and_stays_unique() -> None:
    assert slug("smollm2-135m-instruct") == "smollm2-135m-instruct"
    assert slug("org/model").startswith("org-model-")
    assert slug("org/model") != slug("org:model")


def test_models_without_an_engine_are_left_out_and_those_that_generate_go_first() -> None:
    found = desired_models(
        [
            ModelConfig.model_validate({"name": "vectors", "engine": {"source": "org/v", "task": "embed"}}),
            ModelConfig.model_validate({"name": "elsewhere", "endpoints": [{"url": "http://10.0.0.9:8000"}]}),
            ModelConfig.model_validate({"name": "chat", "engine": {"source": "org/c"}, "stopped": True}),
        ]
    )
    assert list(found) == ["chat", "vectors"]
    assert found["chat"].is_stopped


def test_an_app_is_named_by_its_model_and_what_needs_other_processes() -> None:
    one = models("org/a")["org/a"]
    assert app_name(one) == f"qd-{slug('org/a')}-{one.digest}"
    assert app_name(one, "1f").startswith(app_prefix("1f"))
    assert one.digest != models("org/a", context=64)["org/a"].digest
    live = models("org/a", max_adapters=2, adapters=[{"name": "x", "source": "/x"}], start_timeout_seconds=5)
    assert live["org/a"].digest == models("org/a", max_adapters=2)["org/a"].digest


def test_changes_are_found_by_name() -> None:
    assert changed(models("a", "b"), models("b", "c")) == {"a", "c"}
    assert changed(models("a"), models("a", context=64)) == {"a"}
