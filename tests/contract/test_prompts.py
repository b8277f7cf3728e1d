"""A prompt's life with the OpenAI SDK, the same from files, edits at two gateways, and a database that is away."""

import asyncio
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import openai
import pytest
from tests.contract.prompted import CONFIG, PATH, Prompted, version_used
from tests.platform import GatewayProcess, SimulatorProcess
from tests.servers import PostgresServer, RedisServer, short_folder, wait_until
from tests.worker.process import WorkerProcess

from quarterdeck.cli import credentials
from quarterdeck.inference.prompts.split import LabelTargets
from quarterdeck.settings.prompts import LabelSpec
from quarterdeck.store.database import Database
from quarterdeck.store.keys import KeyStore


@pytest.fixture(scope="module")
def platform(postgres_server: PostgresServer) -> Iterator[Prompted]:
    folder = short_folder()
    redis = RedisServer(folder)
    redis.start()
    simulator = SimulatorProcess(folder, ["--model", "chat", "--inter-token-latency", "0ms"])
    simulator.start()
    database_url = asyncio.run(_database(postgres_server))
    shared = {
        "QUARTERDECK_ENGINE_URL": simulator.url,
        "QUARTERDECK_REDIS_URL": redis.url(),
        "QUARTERDECK_DATABASE_URL": database_url,
    }
    first, second = (GatewayProcess(folder, CONFIG, shared, name) for name in ("one", "two"))
    first.start()
    second.start()
    user, _ = credentials.ensure(folder, first.url + "/v1")
    asyncio.run(_keys(database_url, user.api_key, user.admin_key))
    worker = WorkerProcess(folder / "state", {**shared, "QUARTERDECK_CONFIG": str(first.config)})
    worker.wait_until_started()
    made = Prompted(folder, redis, postgres_server, simulator, (first, second), worker, user.api_key, user.admin_key)
    yield made
    made.stop()
    shutil.rmtree(folder)


async def _database(server: PostgresServer) -> str:
    connection = await asyncpg.connect(server.dsn())
    await connection.execute("CREATE DATABASE prompted TEMPLATE template0")
    await connection.close()
    return server.url("prompted")


async def _keys(database_url: str, key: str, admin_key: str) -> None:
    database = Database(database_url)
    await database.migrate()  # a gateway is ready before it has done so
    keys = KeyStore(database)
    await keys.create(secret=key, name="user", team="red")
    await keys.create(secret=admin_key, name="admin", is_admin=True)
    await database.close()


def test_a_prompts_life(platform: Prompted) -> None:
    spec = {
        "messages": [
            {"role": "system", "content": "You greet in {{ language }}."},
            {"role": "user", "content": "{{ who }}"},
        ],
        "variables": {"language": {"default": "English", "enum": ["English", "Basque"]}},
        "model": "chat",
        "parameters": {"max_tokens": 4, "temperature": 0},
    }
    made = platform.ask("POST", PATH, {"name": "greet", **spec})
    assert made["labels"] == {"production": {"version": 1}}
    who = {"variables": {"who": "Ann"}}

    # Used: by the extra member, and by clients that can set only a model.
    assert platform.version_used({"id": "greet", **who}) == "greet@1"
    assert platform.version_used(who, model="prompt:greet@production") == "greet@1"
    with (
        platform.client() as client,
        client.chat.completions.create(
            model="prompt:greet",
            messages=[{"role": "user", "content": "And?"}],
            stream=True,
            extra_body={"prompt": who},
        ) as stream,
    ):
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    with pytest.raises(
        openai.BadRequestError, match="missing 'who'; unknown 'whom'; 'language' must be one of"
    ) as wrong:
        platform.version_used({"id": "greet", "variables": {"whom": "Ann", "language": "Latin"}})
    assert (wrong.value.param, wrong.value.code) == ("prompt.variables.who", "invalid_prompt_variables")
    with pytest.raises(openai.NotFoundError, match="does not exist or you do not have access"):
        platform.version_used({"id": "nothing"})

    # A new version changes nothing until a label points at it.
    longer = {**spec, "parameters": {"max_tokens": 40, "temperature": 0}, "base": 1, "message": "say more"}
    assert platform.ask("POST", f"{PATH}/greet/versions", longer)["version"] == 2
    assert platform.version_used({"id": "greet", **who}) == "greet@1"
    assert platform.version_used({"id": "greet", "version": 2, **who}) == "greet@2"

    # A canary: each user stays with a version, the shares are the weights'.
    split = {"split": [{"version": 1, "weight": 90}, {"version": 2, "weight": 10}]}
    platform.ask("POST", f"{PATH}/greet/labels/production", split)
    expected = LabelTargets(made["id"], "production", LabelSpec.model_validate(split))
    users = [f"user-{n}" for n in range(100)]
    for gateway in (0, 1):
        with platform.client(gateway) as client:
            for user in users[gateway::2]:
                used = version_used(client, {"id": "greet", **who}, user=user)
                assert used == f"greet@{expected.pick(user)}"
    canaries = sum(expected.pick(user) == 2 for user in users)
    assert 2 <= canaries <= 30

    # Compared, from the ledger.
    def compared() -> dict[str, object]:
        found: dict[str, object] = platform.ask("GET", f"{PATH}/greet/compare?label=production")
        return found

    def are_all_in_the_ledger() -> bool:
        found = compared()
        return found["candidate"]["requests"] == canaries and found["baseline"]["requests"] == 100 - canaries  # type: ignore[index]

    wait_until(are_all_in_the_ledger, seconds=30, what=lambda: str(compared()))
    shown = platform.run("prompts", "compare", "greet", "--label", "production").stdout
    assert f"version 2: {canaries} requests, 0 errors" in shown
    assert re.search(r"cost .* worse", shown)
    assert "verdict: worse" in shown

    # Promoted all the same, and rolled back.
    platform.ask("POST", f"{PATH}/greet/labels/production", {"version": 2, "reason": "worth it"})
    assert platform.version_used({"id": "greet", **who}) == "greet@2"
    assert platform.run("prompts", "rollback", "greet", "production", "--reason", "too dear").exit_code == 0
    assert platform.version_used({"id": "greet", **who}) == "greet@1"
    events = platform.ask("GET", f"{PATH}/greet/events")["data"]
    assert [(each["kind"], each["reason"]) for each in events[:2]] == [
        ("label.rolled_back", "too dear"),
        ("label.set", "worth it"),
    ]
    metrics = platform.gateways[0].get("/metrics")[1]
    assert re.search(
        r'quarterdeck_prompt_requests_total\{org="default",prompt="greet",version="2",status="ok"\} [1-9]', metrics
    )

    platform.ask("DELETE", f"{PATH}/greet")
    with pytest.raises(openai.NotFoundError):
        platform.version_used({"id": "greet", **who})


def test_the_same_from_files(platform: Prompted, tmp_path: Path) -> None:
    file = tmp_path / "prompts" / "hello.yaml"
    file.parent.mkdir()
    file.write_text("name: hello\nlabels: [production]\nmodel: chat\ntext: |\n  Say hello\n  to {{ who }}.\n")
    folder, who = str(file.parent), {"id": "hello", "variables": {"who": "Ann"}}

    dry = platform.run("prompts", "apply", folder, "--dry-run").stdout
    assert "hello: create, labelled production" in dry
    assert "+  to {{ who }}." in dry
    with pytest.raises(openai.NotFoundError):
        platform.version_used(who)
    assert "changed: 1, unchanged: 0" in platform.run("prompts", "apply", folder, "-m", "first").stdout
    assert platform.version_used(who) == "hello@1"
    assert "changed: 0, unchanged: 1" in platform.run("prompts", "apply", folder).stdout

    file.write_text(file.read_text().replace("Say hello", "Wave"))
    dry = platform.run("prompts", "apply", folder, "--dry-run").stdout
    assert "-  Say hello\n+  Wave\n" in dry
    platform.run("prompts", "apply", folder)
    assert platform.version_used(who) == "hello@2"
    assert "-  Say hello\n+  Wave\n" in platform.run("prompts", "diff", "hello", "1", "2").stdout

    # A canary that runs is not overwritten.
    assert platform.run("prompts", "split", "hello", "production", "2=90", "1=10").exit_code == 0
    done = platform.run("prompts", "apply", folder)
    assert "hello: the label production is split (2: 90, 1: 10); it is left alone" in done.output
    assert platform.run("prompts", "label", "hello", "production", "2").exit_code == 0

    pulled = tmp_path / "pulled"
    platform.run("prompts", "pull", str(pulled), "--name", "hello")
    assert "changed: 0, unchanged: 1" in platform.run("prompts", "apply", str(pulled)).stdout
    rendered = platform.run("prompts", "render", "hello", "--var", "who=Bo").stdout
    assert rendered == "Wave\nto Bo.\n\n"
    assert "hello" in platform.run("prompts", "list").stdout
    assert "Wave" in platform.run("prompts", "show", "hello").stdout

    file.write_text("name: hello\ntext: '{{ who.__class__ }}'\n")
    refused = platform.run("prompts", "apply", folder)
    assert refused.exit_code == 1
    assert refused.stderr.startswith(f"Error: {file}: text: Invalid template: line 1: templates have no attributes")

    file.unlink()
    (file.parent / "other.yaml").write_text("name: other\ntext: hi\nmodel: chat\n")
    kept = platform.run("prompts", "apply", folder)
    assert "not in" in kept.stderr
    assert platform.version_used(who) == "hello@2"
    assert "hello: delete" in platform.run("prompts", "apply", folder, "--prune").stdout
    with pytest.raises(openai.NotFoundError):
        platform.version_used(who)


@pytest.mark.long  # the worker looks every ten seconds
def test_a_canary_that_fails_is_rolled_back_by_the_worker(platform: Prompted) -> None:
    made = platform.ask("POST", PATH, {"name": "guarded", "text": "1", "model": "chat"})
    platform.ask("POST", f"{PATH}/guarded/versions", {"text": "2", "model": "chat"})
    split = {"split": [{"version": 1, "weight": 50}, {"version": 2, "weight": 50}], "guard": {"max_error_rate": 0.2}}
    platform.ask("POST", f"{PATH}/guarded/labels/production", split)
    expected = LabelTargets(made["id"], "production", LabelSpec.model_validate(split))
    canaries = [f"user-{n}" for n in range(200) if expected.pick(f"user-{n}") == 2][:60]
    with platform.client() as client:
        for user in canaries:
            with pytest.raises(openai.BadRequestError):
                version_used(client, {"id": "guarded"}, user=user, extra_headers={"x-fault": "400"})

    def label() -> object:
        return platform.ask("GET", f"{PATH}/guarded")["labels"]["production"]

    wait_until(lambda: label() == {"version": 1}, seconds=60, what=lambda: str(label()))
    wait_until(lambda: _uses_for(platform, canaries[0]) == "guarded@1", seconds=20, what=lambda: "version 1")
    event = platform.ask("GET", f"{PATH}/guarded/events?limit=1")["data"][0]
    assert (event["kind"], event["author"]) == ("label.rolled_back", "worker")
    assert event["reason"] == "broken bound: max_error_rate 0.2: 60 of 60 requests of version 2 failed"


def _uses_for(platform: Prompted, user: str) -> str:
    return platform.version_used({"id": "guarded"}, gateway=1, user=user)


def test_an_edit_at_one_gateway_is_heard_by_the_other(platform: Prompted) -> None:
    platform.ask("POST", PATH, {"name": "shared", "text": "1", "model": "chat"})
    wait_until(lambda: _uses(platform, 1, "shared@1"), seconds=20, what=lambda: "version 1 at the second gateway")
    for number in range(2, 6):
        body = {"text": str(number), "model": "chat", "labels": ["production"]}
        platform.ask("POST", f"{PATH}/shared/versions", body, gateway=number % 2)
        # Much sooner than the poll, which comes each half minute.
        wait_until(lambda n=number: _uses(platform, 1, f"shared@{n}"), seconds=10, what=lambda: "the new version")  # type: ignore[misc]
        wait_until(lambda n=number: _uses(platform, 0, f"shared@{n}"), seconds=10, what=lambda: "the new version")  # type: ignore[misc]


def _uses(platform: Prompted, gateway: int, version: str) -> bool:
    try:
        return platform.version_used({"id": version.partition("@")[0]}, gateway=gateway) == version
    except (openai.NotFoundError, openai.BadRequestError):  # not there yet, or an earlier version with variables
        return False


def test_prompts_serve_while_the_database_is_away(platform: Prompted) -> None:
    platform.ask("POST", PATH, {"name": "lasting", "text": "{{ x }}", "model": "chat"})
    wait_until(lambda: _uses_lasting(platform, 1), seconds=20, what=lambda: "the prompt at the second gateway")
    assert _uses_lasting(platform, 0)
    platform.postgres.stop()
    try:
        for gateway in (0, 1):
            assert _uses_lasting(platform, gateway)
        with pytest.raises(openai.NotFoundError):
            platform.version_used({"id": "nothing"})
    finally:
        platform.postgres.start()

    def is_back() -> bool:
        try:
            platform.ask("POST", f"{PATH}/lasting/versions", {"text": "2", "model": "chat", "labels": ["production"]})
        except AssertionError:
            return False
        return True

    wait_until(is_back, seconds=30, what=lambda: "the database")
    wait_until(lambda: _uses(platform, 1, "lasting@2"), seconds=20, what=lambda: "version 2 at the second gateway")


def _uses_lasting(platform: Prompted, gateway: int) -> bool:
    try:
        prompt = {"id": "lasting", "variables": {"x": "y"}}
        return platform.version_used(prompt, gateway=gateway) == "lasting@1"
    except openai.NotFoundError:
        return False
