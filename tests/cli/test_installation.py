"""Where a release's admin key is."""

from typing import Any

import click
import pytest

from quarterdeck.cli.installation import KEY_FILE, admin_secret


def deployment(path: str | None, **secret: Any) -> dict[str, Any]:
    env = [{"name": KEY_FILE, "value": path}] if path else []
    mounts = [{"name": "other", "mountPath": "/x"}, {"name": "admin", "mountPath": "/run/admin"}]
    volumes = [{"name": "other", "emptyDir": {}}, {"name": "admin", "secret": {"secretName": "qd-admin", **secret}}]
    container = {"name": "gateway", "env": env, "volumeMounts": mounts}
    pod = {"containers": [container], "volumes": volumes}
    return {"metadata": {"name": "qd-gateway"}, "spec": {"template": {"spec": pod}}}


def test_the_secret_is_the_one_that_the_gateway_mounts() -> None:
    assert admin_secret(deployment("/run/admin/key")) == ("qd-admin", "key")


def test_a_secret_of_the_users_own_may_name_its_key_otherwise() -> None:
    renamed = deployment("/run/admin/key", items=[{"key": "token", "path": "key"}])
    assert admin_secret(renamed) == ("qd-admin", "token")


@pytest.mark.parametrize("path", [None, "/elsewhere/key"])
def test_a_gateway_without_such_a_secret_needs_a_key_file(path: str | None) -> None:
    with pytest.raises(click.ClickException, match="--key-file"):
        admin_secret(deployment(path))
