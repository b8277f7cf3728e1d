"""Locust's users: one class per closed-loop scenario, and one that keeps an open loop's schedule.

All users of a process share a `LoadGenerator` (`environment.generator`), which sends their requests.
"""

from locust import User, task
from locust.exception import StopUser

from quarterdeck.load.run.profile import Profile


class OpenLoop(User):
    """Keeps the schedule of one process. Locust counts it as one user."""

    @task
    def keep_schedule(self) -> None:
        self.environment.generator.keep_schedule()
        raise StopUser


class ClosedLoopUser(User):
    """Sends a request, waits for the answer, thinks, and repeats."""

    abstract = True
    scenario = ""

    def wait_time(self) -> float:
        return float(self.environment.generator.pause())

    @task
    def send(self) -> None:
        self.environment.generator.send_next(self.scenario)


class Chat(ClosedLoopUser):
    scenario = "chat"


class Stream(ClosedLoopUser):
    scenario = "stream"


class Session(ClosedLoopUser):
    scenario = "session"


class Embeddings(ClosedLoopUser):
    scenario = "embeddings"


class Rag(ClosedLoopUser):
    scenario = "rag"


class ToolCaller(ClosedLoopUser):
    scenario = "tools"


class Repeater(ClosedLoopUser):
    scenario = "repeat"


class Disconnecter(ClosedLoopUser):
    scenario = "disconnect"


class SlowReaderUser(ClosedLoopUser):
    scenario = "slow_reader"


class UnknownKey(ClosedLoopUser):
    scenario = "bad_key"


USERS: tuple[type[ClosedLoopUser], ...] = (
    Chat, Stream, Session, Embeddings, Rag, ToolCaller, Repeater, Disconnecter, SlowReaderUser, UnknownKey,
)  # fmt: skip


def user_classes(profile: Profile) -> list[type[User]]:
    """The user classes of the profile's scenarios, with their weights."""
    if profile.arrivals != "users":
        return [OpenLoop]
    chosen = profile.scenarios.chosen
    return [
        type(user.__name__, (user,), {"weight": chosen[user.scenario].weight})
        for user in USERS
        if user.scenario in chosen
    ]
