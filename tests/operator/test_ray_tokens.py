"""Each Model's Ray cluster has a token of its own, which is made once."""

import base64
from typing import Any

import pytest
from tests.operator.fake_cluster import FakeCluster

from quarterdeck.kube.names import is_ray_token
from quarterdeck.kube.resources.model import Model
from quarterdeck.operator.apply import ForeignObjectError
from quarterdeck.operator.manifests import Key
from quarterdeck.operator.ray_tokens import CHECK_SECONDS, RayTokens
from quarterdeck.operator.render import rayservice
from quarterdeck.operator.render.request import RenderRequest
from quarterdeck.operator.settings import OperatorConfig


def request(name: str = "chat", uid: str = "u1", **config: Any) -> RenderRequest:
    model = Model.parse({"metadata": {"name": name, "uid": uid}, "spec": {"engine": {"type": "sim"}}})
    images = {"vllm": "v", "sim": "s", "ray": "r"}
    return RenderRequest(model, "models", OperatorConfig.model_validate({"images": images, **config}), 1)


def token_of(cluster: FakeCluster, name: str) -> bytes:
    return base64.b64decode(cluster.objects[Key("Secret", name)]["data"]["auth_token"])


async def test_two_models_have_two_tokens_that_their_ray_services_name() -> None:
    cluster, found = FakeCluster(), []
    for name in ("chat", "a-model-whose-name-is-forty-characters-x"):
        await RayTokens(cluster, "models").prepare(request(name, name))
        service = next(each for each in rayservice.render(request(name, name)) if each["kind"] == "RayService")
        secret = service["spec"]["rayClusterConfig"]["authOptions"]["secretName"]
        assert is_ray_token(secret) and len(secret) <= 63
        assert cluster.objects[Key("Secret", secret)]["metadata"]["ownerReferences"][0]["uid"] == name
        found.append(token_of(cluster, secret))
    assert len(set(found)) == 2 and all(len(each) == 64 for each in found)


async def test_a_token_is_kept_and_one_that_was_deleted_comes_back() -> None:
    cluster, time = FakeCluster(), [0.0]
    tokens = RayTokens(cluster, "models", lambda: time[0])
    await tokens.prepare(request())
    first = token_of(cluster, "model-chat-ray-token")
    await RayTokens(cluster, "models").prepare(request())  # another operator
    assert token_of(cluster, "model-chat-ray-token") == first
    del cluster.objects[Key("Secret", "model-chat-ray-token")]
    await tokens.prepare(request())
    assert Key("Secret", "model-chat-ray-token") not in cluster.objects, "it looks now and then only"
    time[0] = CHECK_SECONDS
    await tokens.prepare(request())
    assert token_of(cluster, "model-chat-ray-token") != first


async def test_a_secret_of_another_owner_is_no_token() -> None:
    cluster = FakeCluster()
    await RayTokens(cluster, "models").prepare(request(uid="gone"))
    with pytest.raises(ForeignObjectError):
        await RayTokens(cluster, "models").prepare(request(uid="u2"))


async def test_the_platforms_own_token_is_for_all() -> None:
    cluster = FakeCluster()
    await RayTokens(cluster, "models").prepare(request(ray={"tokenSecret": "given"}))
    assert not cluster.objects
