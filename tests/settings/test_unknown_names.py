"""Names that nothing has."""

from quarterdeck.settings.loading import parse
from quarterdeck.settings.unknown_names import unknown_names

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
