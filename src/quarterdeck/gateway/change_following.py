"""How a gateway keeps what it holds in memory up to date: changes of keys and prompts that other gateways announce."""

from quarterdeck.gateway.auth.authenticator import Authenticator
from quarterdeck.gateway.auth.follower import Follower
from quarterdeck.gateway.connectivity import Connectivity
from quarterdeck.inference.prompts.catalogue import PromptCatalogue
from quarterdeck.net.redis_pubsub import Subscription
from quarterdeck.resources.prompts import changes as prompt_changes
from quarterdeck.resources.prompts.changes import PromptChange, decode_prompt_change
from quarterdeck.resources.tenancy.changes import CHANNEL, Change, decode_change
from quarterdeck.settings.environment import Environment

PROMPTS_POLL_SECONDS = 0.5
"""Between two looks for changed prompts while the channel is lost: an edit takes effect within a second."""
PROMPTS_REFRESH_SECONDS = 30.0
"""Between two looks while the channel is subscribed, for what it lost."""


def follow_keys(
    environment: Environment, authenticator: Authenticator, connectivity: Connectivity
) -> tuple[Follower[Change], Subscription]:
    """What keeps the keys in memory up to date."""
    follower = Follower(authenticator.catch_up, decode_change)

    def on_state(is_up: bool) -> None:
        connectivity.subscription(is_up)
        follower.listen(is_up)

    return follower, Subscription(environment.redis_url, CHANNEL, on_state=on_state, on_message=follower.hear)


def follow_prompts(environment: Environment, catalogue: PromptCatalogue) -> tuple[Follower[PromptChange], Subscription]:
    """What keeps the prompts in memory up to date: announced changes, and a poll for those that were missed."""
    follower = Follower(
        catalogue.catch_up,
        decode_prompt_change,
        what="prompts",
        poll_seconds=PROMPTS_POLL_SECONDS,
        refresh_seconds=PROMPTS_REFRESH_SECONDS,
    )
    follower.read_everything()
    channel = prompt_changes.CHANNEL
    return follower, Subscription(environment.redis_url, channel, on_state=follower.listen, on_message=follower.hear)
