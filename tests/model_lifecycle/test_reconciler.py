"""Running models follow the configuration; a model that fails or hangs affects no other."""

import asyncio
from pathlib import Path

import pytest
from tests.model_lifecycle.fake_runtime import FakeRuntime, models

from quarterdeck.model_lifecycle import reconciler as module
from quarterdeck.model_lifecycle.desired import Desired, app_name, desired_models
from quarterdeck.model_lifecycle.gpus import GpuNeed, Gpus
from quarterdeck.model_lifecycle.reconciler import Reconciler, Timing
from quarterdeck.model_lifecycle.runtime import Observed, Progress, StartFailure
from quarterdeck.model_lifecycle.start_times import StartTimes
from quarterdeck.settings.models import ModelConfig


class Clock:
    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


class World:
    """A reconciler on a fake runtime, stepped by hand."""

    def __init__(self, max_starting: int | None = None, path: Path | None = None) -> None:
        self.runtime, self.clock = FakeRuntime(max_starting), Clock()
        self.times = StartTimes(path)
        self.reconciler = Reconciler(self.runtime, self.times, timing=Timing(drain=5.0, settle=0.0), now=self.clock)

    async def settle(self) -> None:
        """Let every task go as far as it can without a change from outside."""
        for _ in range(6):
            self.reconciler.step()
            for _ in range(10):
                await asyncio.sleep(0)

    async def follow(self, desired: dict[str, Desired]) -> None:
        self.reconciler.follow(desired)
        await self.settle()

    async def ready(self, *apps: str) -> None:
        for app in apps:
            self.runtime.apps[app] = Observed("ready", memory_bytes=100)
        await self.settle()

    def states(self) -> dict[str, str]:
        return {each.name: each.state for each in self.reconciler.statuses()}

    def detail(self, name: str) -> str:
        status = self.reconciler.status(name)
        assert status is not None
        return status.detail


def app(desired: dict[str, Desired], name: str) -> str:
    return app_name(desired[name])


@pytest.fixture
def world() -> World:
    return World()


async def test_an_added_model_starts_and_the_running_one_is_left_alone(world: World) -> None:
    one, both = models("a"), models("a", "b")
    await world.follow(one)
    await world.ready(app(one, "a"))
    await world.follow(both)
    assert world.states() == {"a": "ready", "b": "loading"}
    await world.ready(app(both, "b"))
    assert world.states() == {"a": "ready", "b": "ready"}
    assert world.runtime.started == [app(both, "a"), app(both, "b")]
    assert world.runtime.stopped == []


async def test_a_removed_model_is_ended_once_its_requests_have_ended(world: World) -> None:
    both = models("a", "b")
    await world.follow(both)
    await world.ready(app(both, "a"), app(both, "b"))
    world.runtime.active[app(both, "b")] = 1
    await world.follow(models("a"))
    assert world.states() == {"a": "ready", "b": "removing"}
    assert [each.is_leaving for each in world.reconciler.instances] == [False, True]
    world.runtime.active.clear()
    await asyncio.sleep(0.25)  # one look at the requests in flight
    await world.settle()
    assert world.states() == {"a": "ready"}
    assert world.runtime.stopped == [app(both, "b")]


async def test_a_changed_model_serves_with_its_old_configuration_until_the_new_one_is_ready(world: World) -> None:
    old, new = models("a"), models("a", context=64)
    await world.follow(old)
    await world.ready(app(old, "a"))
    await world.follow(new)
    assert world.states() == {"a": "updating"}
    assert set(world.runtime.apps) == {app(old, "a"), app(new, "a")}
    await world.ready(app(new, "a"))
    assert set(world.runtime.apps) == {app(new, "a")}
    assert world.states() == {"a": "ready"}


async def test_of_two_edits_in_quick_succession_the_latest_wins(world: World) -> None:
    first, second, third = models("a"), models("a", context=64), models("a", context=128)
    await world.follow(first)
    await world.ready(app(first, "a"))
    await world.follow(second)
    await world.follow(third)
    assert set(world.runtime.apps) == {app(first, "a"), app(third, "a")}
    await world.ready(app(third, "a"))
    assert set(world.runtime.apps) == {app(third, "a")}


async def test_an_edit_that_is_reverted_keeps_the_running_processes(world: World) -> None:
    old, new = models("a"), models("a", context=64)
    await world.follow(old)
    await world.ready(app(old, "a"))
    await world.follow(new)
    await world.follow(old)
    assert set(world.runtime.apps) == {app(old, "a")}
    assert world.states() == {"a": "ready"}
    assert app(old, "a") not in world.runtime.stopped


async def test_an_edit_reverted_while_the_old_version_drains_uses_it_again(world: World) -> None:
    old, new = models("a"), models("a", context=64)
    await world.follow(old)
    await world.ready(app(old, "a"))
    world.runtime.active[app(old, "a")] = 1
    await world.follow(new)
    await world.ready(app(new, "a"))
    assert [each.is_leaving for each in world.reconciler.instances] == [True, False]
    await world.follow(old)
    assert world.states() == {"a": "ready"}
    assert app(old, "a") not in world.runtime.stopped
    assert app(new, "a") in world.runtime.stopped


async def test_a_renamed_model_is_one_removed_and_one_added(world: World) -> None:
    await world.follow(models("a"))
    await world.ready(app(models("a"), "a"))
    await world.follow(models("b"))
    assert set(world.runtime.apps) == {app(models("b"), "b")}


async def test_a_stopped_model_is_drained_and_starts_again(world: World) -> None:
    on = models("a")
    off = {"a": Desired("a", on["a"].engine, is_stopped=True)}
    await world.follow(on)
    await world.ready(app(on, "a"))
    await world.follow(off)
    assert (world.states(), world.runtime.apps) == ({"a": "stopped"}, {})
    await world.follow(on)
    assert world.states() == {"a": "loading"}


async def test_a_failing_model_is_tried_again_with_back_off_and_affects_no_other(world: World) -> None:
    both = models("a", "b")
    world.runtime.failures["b"] = StartFailure("engine_failed", "no such flag")
    await world.follow(both)
    await world.ready(app(both, "a"))
    delays = []
    for _ in range(3):
        status = world.reconciler.status("b")
        assert status is not None and status.retry_seconds is not None
        assert (status.state, status.reason, status.detail) == ("failed", "engine_failed", "no such flag")
        delays.append(status.retry_seconds)
        world.clock.time += status.retry_seconds
        await world.settle()
    assert delays == [15.0, 30.0, 60.0]
    assert world.states() == {"a": "ready", "b": "failed"}
    assert app(both, "a") not in world.runtime.stopped


async def test_a_failed_model_is_tried_at_once_when_its_configuration_changes(world: World) -> None:
    world.runtime.failures["a"] = StartFailure("gated", "accept its terms", is_permanent=True)
    await world.follow(models("a"))
    assert world.states() == {"a": "failed"}
    del world.runtime.failures["a"]
    await world.follow(models("a"))  # an edit elsewhere in the file
    assert world.states() == {"a": "failed"}
    await world.follow(models("a", context=64))
    assert world.states() == {"a": "loading"}


async def test_a_failed_model_is_tried_on_request(world: World) -> None:
    world.runtime.failures["a"] = StartFailure("gated", "accept its terms", is_permanent=True)
    await world.follow(models("a"))
    del world.runtime.failures["a"]
    assert world.reconciler.retry("a")
    await world.settle()
    assert world.states() == {"a": "loading"}
    assert not world.reconciler.retry("a")


async def test_a_change_that_fails_leaves_the_old_version_serving_and_says_why(world: World) -> None:
    await world.follow(models("a"))
    old = app(models("a"), "a")
    await world.ready(old)
    new = models("a", context=64)
    await world.follow(new)
    world.runtime.apps[app(new, "a")] = Observed("failed", detail="context is too long")
    await world.settle()
    status = world.reconciler.status("a")
    assert status is not None and (status.state, status.reason) == ("ready", "engine_failed")
    assert status.detail == "its change is not in force: context is too long"
    assert set(world.runtime.apps) == {old}


async def test_a_start_that_hangs_is_ended_after_its_timeout(world: World) -> None:
    desired = models("a", start_timeout_seconds=60)
    await world.follow(desired)
    world.clock.time += 61
    await world.settle()
    assert (world.states(), world.runtime.apps) == ({"a": "failed"}, {})
    assert world.detail("a").startswith("not ready after 60 s (start_timeout_seconds)")
    world.clock.time += 15
    await world.settle()
    assert world.states() == {"a": "loading"}


async def test_a_download_does_not_count_as_a_start_that_hangs(world: World) -> None:
    world.runtime.downloads["a"] = asyncio.Event()
    await world.follow(models("a", start_timeout_seconds=60))
    world.clock.time += 3600
    await world.settle()
    status = world.reconciler.status("a")
    assert status is not None
    assert (status.state, status.detail, status.progress) == ("downloading", "downloading 34 %", 0.34)


async def test_a_model_removed_during_its_download_ends_it(world: World) -> None:
    world.runtime.downloads["a"] = asyncio.Event()
    await world.follow(models("a"))
    await world.follow({})
    assert (world.states(), world.runtime.started) == ({}, [])


async def test_a_model_that_does_not_fit_says_by_how_much_and_starts_when_memory_is_free(world: World) -> None:
    world.runtime.free, world.runtime.need = 2_300_000_000, {"a": 5_100_000_000}
    await world.follow(models("a"))
    assert world.detail("a") == "does not fit: needs 5.1 GB of memory, 2.3 GB free"
    world.runtime.free = 6_000_000_000
    world.clock.time += 10
    await world.settle()
    assert world.states() == {"a": "loading"}


async def test_a_model_that_did_not_fit_starts_as_soon_as_another_was_removed(world: World) -> None:
    world.runtime.free, world.runtime.need = 1000, {"a": 600, "b": 600}
    both = models("a", "b")
    await world.follow(both)
    await world.ready(app(both, "a"))
    assert world.states() == {"a": "ready", "b": "failed"}
    await world.follow(models("b"))
    assert world.states() == {"b": "loading"}


async def test_two_versions_that_do_not_fit_together_follow_one_another(world: World) -> None:
    old, new = models("a"), models("a", context=64)
    world.runtime.free, world.runtime.need = 600, {"a": 500}
    await world.follow(old)
    await world.ready(app(old, "a"))
    world.runtime.apps[app(old, "a")] = Observed("ready", memory_bytes=450)
    world.runtime.free = 150
    await world.follow(new)
    assert world.runtime.stopped == [app(old, "a")]
    world.runtime.free = 600
    await world.settle()
    assert set(world.runtime.apps) == {app(new, "a")}
    assert world.states() == {"a": "loading"}


async def test_a_second_model_on_one_gpu_waits_until_the_first_is_removed(world: World) -> None:
    world.runtime.all_gpus, need = Gpus(1), GpuNeed(1, 10**9, 0.9)
    world.runtime.gpu_need = {"a": need, "b": need}
    both = models("a", "b")
    await world.follow(both)
    await world.ready(app(both, "a"))
    assert world.states() == {"a": "ready", "b": "failed"}
    assert world.detail("b") == "does not fit: needs 1 GPU, 0 of 1 free"
    await world.follow(models("b"))
    assert world.states() == {"b": "loading"}


async def test_a_change_of_a_model_on_the_only_gpu_ends_the_previous_version_first(world: World) -> None:
    old, new = models("a"), models("a", context=64)
    world.runtime.all_gpus, world.runtime.gpu_need = Gpus(1), {"a": GpuNeed(1, 10**9, 0.9)}
    await world.follow(old)
    await world.ready(app(old, "a"))
    await world.follow(new)
    assert world.runtime.stopped == [app(old, "a")]
    assert set(world.runtime.apps) == {app(new, "a")}


async def test_a_change_that_fits_beside_the_previous_version_does_not_interrupt_it(world: World) -> None:
    old, new = models("a"), models("a", context=64)
    world.runtime.all_gpus, world.runtime.gpu_need = Gpus(2), {"a": GpuNeed(1, 10**9, 0.9)}
    await world.follow(old)
    await world.ready(app(old, "a"))
    await world.follow(new)
    assert set(world.runtime.apps) == {app(old, "a"), app(new, "a")}


async def test_on_a_cpu_models_start_one_after_the_other() -> None:
    world = World(max_starting=1)
    both = models("a", "b")
    await world.follow(both)
    assert world.states() == {"a": "loading", "b": "waiting"}
    assert world.detail("b") == "waiting until a has started"
    await world.ready(app(both, "a"))
    assert world.states() == {"a": "ready", "b": "loading"}


async def test_a_failed_model_does_not_keep_the_next_from_starting() -> None:
    world = World(max_starting=1)
    both = models("a", "b")
    await world.follow(both)
    world.runtime.apps[app(both, "a")] = Observed("failed", detail="boom")
    await world.settle()
    assert world.states() == {"a": "failed", "b": "loading"}


async def test_apps_of_an_earlier_door_are_taken_over_and_others_ended(world: World) -> None:
    desired = models("a")
    world.runtime.apps = {app(desired, "a"): Observed("ready"), "qd-gone-12345678": Observed("ready")}
    await world.follow(desired)
    assert (world.states(), world.runtime.started) == ({"a": "ready"}, [])
    assert world.runtime.stopped == ["qd-gone-12345678"]


async def test_an_end_that_fails_is_repeated(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STOP_RETRY_SECONDS", 0.0)
    await world.follow(models("a"))
    await world.ready(app(models("a"), "a"))
    world.runtime.stops_fail = 2
    await world.follow({})
    assert world.runtime.stopped == [app(models("a"), "a")]


async def test_a_model_added_again_while_its_processes_end_starts_anew(world: World) -> None:
    desired = models("a")
    await world.follow(desired)
    await world.ready(app(desired, "a"))
    world.runtime.hold_stop = asyncio.Event()
    await world.follow({})
    await world.follow(desired)
    assert world.runtime.started == [app(desired, "a")]
    world.runtime.hold_stop.set()
    await world.settle()
    assert world.runtime.started == [app(desired, "a")] * 2
    assert world.states() == {"a": "loading"}


async def test_a_bug_in_one_models_start_is_its_failure(world: World, caplog: pytest.LogCaptureFixture) -> None:
    async def broken(*args: object) -> None:
        raise KeyError("x")

    world.runtime.start = broken  # type: ignore[assignment,method-assign]
    await world.follow(models("a"))
    assert (world.states(), world.detail("a")) == ({"a": "failed"}, "KeyError: 'x'")


async def test_an_adapter_or_a_price_does_not_restart_the_engine(world: World) -> None:
    def config(**fields: object) -> dict[str, Desired]:
        adapters = fields.pop("adapters", [])
        engine = {"source": "org/a", "max_adapters": 2, "adapters": adapters}
        return desired_models([ModelConfig.model_validate({"name": "a", "engine": engine, **fields})])

    first = config()
    await world.follow(first)
    await world.ready(app(first, "a"))
    await world.follow(config(aliases=["b"], adapters=[{"name": "x", "source": "/x"}]))
    assert world.runtime.started == [app(first, "a")]
    assert world.reconciler.desired["a"].engine.adapters


async def test_the_time_of_a_start_is_the_estimate_of_the_next(tmp_path: Path) -> None:
    world = World(path=tmp_path / "times.json")
    await world.follow(models("a"))
    world.clock.time += 40
    await world.ready(app(models("a"), "a"))
    again = World(path=tmp_path / "times.json")
    await again.follow(models("a"))
    again.clock.time += 10
    status = again.reconciler.status("a")
    assert status is not None and status.seconds_left == pytest.approx(30.0)


async def test_run_follows_by_itself_and_its_end_leaves_the_processes(world: World) -> None:
    running = asyncio.create_task(world.reconciler.run())
    world.reconciler.follow(models("a"))
    while not world.runtime.started:  # noqa: ASYNC110
        await asyncio.sleep(0)
    world.runtime.apps[app(models("a"), "a")] = Observed("starting", Progress("compiling"))
    while world.states() != {"a": "compiling"}:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert world.runtime.stopped == []
