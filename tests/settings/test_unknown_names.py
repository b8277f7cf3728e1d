"""Names that nothing has."""

from quarterdeck.settings.loading import parse
from quarterdeck.settings.unknown_names import unknown_key_models, unknown_names

CONFIG = """
models:
  - {name: chat, aliases: [gpt], engine: {source: a, max_adapters: 1, adapters: [{name: tuned, source: ./t}]}}
routes: [{name: smart, targets: [{model: chat, weight: 1}]}]
teams: {red: {}}
"""


def test_policies_and_weights_of_names_that_exist_need_no_warning() -> None:
    policies = "cache: {policies: {chat: {}, gpt: {}, tuned: {}, smart: {}}}\n"
    weights = "queue: {weights: {red: 2, default: 1, acme/blue: 1}}\n"
    assert unknown_names(parse(CONFIG + policies + weights)) == []


def test_a_name_that_nothing_has_is_named_with_the_closest_one() -> None:
    found = unknown_names(parse(CONFIG + "cache: {policies: {chatt: {}}}\nqueue: {weights: {rad: 2, zzz: 1}}\n"))
    assert found == [
        "cache.policies.chatt: no model, alias, adapter or route has this name; did you mean 'chat'?",
        "queue.weights.rad: no team of this file has this name; one made by the admin API may; did you mean 'red'?",
        "queue.weights.zzz: no team of this file has this name; one made by the admin API may",
    ]


def test_a_keys_model_may_be_a_model_an_alias_an_adapter_or_a_route() -> None:
    known = ["chat", "gpt", "tuned", "smart"]
    assert unknown_key_models(parse(CONFIG), [("ci", known), ("all", [])]) == []
    assert unknown_key_models(parse(CONFIG), [("ci", ["smrt"])]) == [
        "key ci: no model, alias, adapter or route is named 'smrt'; did you mean 'smart'?"
    ]
