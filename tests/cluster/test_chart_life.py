"""A release: secrets that stay, an upgrade with a migration under traffic, a rollback, an end and a new beginning."""

import base64
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from images.builders import choose
from images.layout import cache_folder
from images.loading import Cluster
from tests.cluster.kubectl import Kubectl, is_ending
from tests.cluster.provision import Provisioned
from tests.cluster.release import CHECKOUT, INSTALL_S, Release
from tests.cluster.traffic import Traffic

from quarterdeck.store.migration import head

MODEL = "hello"
NEXT_MIGRATION = '''
"""A table of the next version."""

import sqlalchemy as sa
from alembic import op

revision = "next_version"
down_revision = {head!r}
branch_labels = depends_on = None


def upgrade() -> None:
    op.create_table("of_the_next_version", sa.Column("id", sa.Integer, primary_key=True))
'''
DOCKERFILE = """
ARG IMAGE
FROM ${IMAGE}
COPY next_version.py /opt/quarterdeck/lib/python3.11/site-packages/quarterdeck/store/migrations/versions/
"""


@pytest.fixture(scope="module")
def next_images(cluster: Provisioned, images: dict[str, str]) -> dict[str, str]:
    """The gateway and the worker of a version with one more migration."""
    made, loader = {}, Cluster(CHECKOUT, cache_folder() / "loaded", cluster.environ)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        builder = choose(scratch)
        (scratch / "next_version.py").write_text(NEXT_MIGRATION.format(head=head()))
        (scratch / "Dockerfile").write_text(DOCKERFILE)
        for name in ("gateway", "worker"):
            made[name] = images[name].replace(":in-", ":next-")
            builder.build(scratch, "Dockerfile", made[name], {"IMAGE": images[name]})
        builder.save(list(made.values()), scratch / "next.tar")
        loader.load(scratch / "next.tar", dict.fromkeys(made.values(), "next"))
    return made


def secrets_of(namespace: Kubectl) -> dict[str, dict[str, str]]:
    return {
        each["metadata"]["name"]: each["data"]
        for each in namespace.select("secrets", "app.kubernetes.io/part-of=quarterdeck")
    }


def test_secrets_are_random_and_made_once(release: Release, namespace: Kubectl) -> None:
    made = secrets_of(namespace)
    assert set(made) >= {"qd-admin", "qd-operator-token", "qd-redis"}
    values = [base64.b64decode(value).decode() for data in made.values() for value in data.values()]
    assert len(set(values)) == len(values)
    assert all(len(value) >= 64 for value in values)
    assert not namespace.select("jobs", "app.kubernetes.io/component=secrets"), "the Job is removed"
    assert namespace.get("serviceaccount", "qd-secrets") is None, "and so are its rights"
    release.upgrade({"config": {"queue": {"max_waiting": 50}}})
    assert secrets_of(namespace) == made
    manifest = release.helm("get", "manifest", "qd") + release.helm("get", "hooks", "qd")
    assert not [value for value in values if value in manifest]


def test_an_upgrade_with_a_migration_and_its_rollback_lose_no_request(
    release: Release, namespace: Kubectl, next_images: dict[str, str], traffic: Callable[..., Traffic]
) -> None:
    release.apply_model(MODEL)
    release.wait_ready(MODEL)
    running = traffic(release, MODEL)
    with running.around("upgrade") as upgrade:
        release.upgrade(images=next_images)
    upgrade.assert_no_errors()
    release.kubectl.rolled_out("deployment", "qd-gateway")
    gateways = namespace.select("pods", "app.kubernetes.io/component=gateway")
    images = {each["spec"]["containers"][0]["image"] for each in gateways if not is_ending(each)}
    assert images == {next_images["gateway"]}
    with running.around("rollback") as rollback:
        release.helm("rollback", "qd", "--wait", f"--timeout={INSTALL_S}s")
    rollback.assert_no_errors()
    running.stop()
    release.kubectl.rolled_out("deployment", "qd-worker")
    wanted = running.totals()
    ledger = release.wait_ledger(running.key_id, wanted["requests"])
    assert {name: ledger[name] for name in wanted} == wanted


def test_what_stays_after_uninstall_is_taken_up_by_the_next_installation(release: Release, namespace: Kubectl) -> None:
    key_id, key = release.create_key("survivor")
    release.kubectl("delete", "models.quarterdeck.dev", "--all")
    release.uninstall()
    namespace.wait_all("pods", "app.kubernetes.io/part-of=quarterdeck", lambda pods: not pods, "gone")
    assert namespace.get("configmap", "qd-config") is None, "what the operator wrote goes with it"
    claims = {each["metadata"]["name"] for each in namespace.select("persistentvolumeclaims")}
    assert claims == {"qd-database", "data-qd-redis-0"}
    assert set(secrets_of(namespace)) >= {"qd-admin", "qd-operator-token", "qd-redis"}
    release.install()
    release.apply_model(MODEL)
    release.wait_ready(MODEL)
    release.wait_listed(MODEL)
    answer = release.client(key).chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Again?"}])
    assert answer.choices[0].message.content
    assert release.admin("GET", f"/admin/keys/{key_id}")["name"] == "survivor"
