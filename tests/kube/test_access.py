"""The API's address and credentials: from a pod's service account, which changes, or from a kubeconfig."""

import base64
import ssl
from pathlib import Path

import pytest
import yaml

from quarterdeck.kube.access import AccessError, find_access, of_kubeconfig

POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}


@pytest.fixture
def service_account(tmp_path: Path) -> Path:
    for name, text in (("token", "first\n"), ("namespace", "prod"), ("ca.crt", "")):
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_pod_has_its_service_account(service_account: Path) -> None:
    access = find_access(POD, None, service_account=service_account)
    assert (access.url, access.namespace) == ("https://10.96.0.1:443", "prod")
    assert access.authorization() == "Bearer first"
    (service_account / "token").write_text("second")
    assert access.authorization() == "Bearer second", "kubelet replaces tokens"


def test_an_ipv6_api_server_is_bracketed(service_account: Path) -> None:
    access = find_access({**POD, "KUBERNETES_SERVICE_HOST": "fd00::1"}, "mine", service_account=service_account)
    assert (access.url, access.namespace, access.origin.host) == ("https://[fd00::1]:443", "mine", "fd00::1")


def test_a_replaced_ca_has_another_stamp(service_account: Path) -> None:
    access = find_access(POD, None, service_account=service_account)
    before = access.stamp()
    (service_account / "new").write_text("")
    (service_account / "new").replace(service_account / "ca.crt")
    assert access.stamp() != before


def test_a_pod_without_a_token_is_told_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match="automountServiceAccountToken"):
        find_access({**POD, "KUBECONFIG": str(tmp_path / "none")}, None, service_account=tmp_path)


def test_without_any_api_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match="no kubeconfig"):
        find_access({"KUBECONFIG": str(tmp_path / "none")}, None, service_account=tmp_path)


def kubeconfig(folder: Path, user: dict[str, object], **cluster: object) -> Path:
    path = folder / "config"
    document = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u", "namespace": "dev"}}],
        "clusters": [{"name": "k", "cluster": {"server": "http://127.0.0.1:8001", **cluster}}],
        "users": [{"name": "u", "user": user}],
    }
    path.write_text(yaml.safe_dump(document))
    return path


def test_a_kubeconfig_with_a_token(tmp_path: Path) -> None:
    access = of_kubeconfig(kubeconfig(tmp_path, {"token": "t"}))
    assert (access.url, access.namespace, access.authorization()) == ("http://127.0.0.1:8001", "dev", "Bearer t")
    assert access.tls() is None


def test_files_of_a_kubeconfig_stand_beside_it(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from a file")
    assert of_kubeconfig(kubeconfig(tmp_path, {"tokenFile": "token"})).authorization() == "Bearer from a file"


def test_a_server_may_be_trusted_blindly(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path, {"token": "t"}, server="https://127.0.0.1:6443", **{"insecure-skip-tls-verify": True})
    context = of_kubeconfig(path).tls()
    assert context is not None and context.verify_mode is ssl.CERT_NONE


@pytest.mark.parametrize(
    ("user", "cluster", "problem"),
    [
        ({"exec": {"command": "aws"}}, {}, "`exec` and `auth-provider` are not supported"),
        ({}, {"certificate-authority-data": "!"}, "can't read the kubeconfig"),
    ],
)
def test_a_kubeconfig_that_is_not_understood_is_refused(
    tmp_path: Path, user: dict[str, object], cluster: dict[str, object], problem: str
) -> None:
    with pytest.raises(AccessError, match=problem):
        of_kubeconfig(kubeconfig(tmp_path, user, **cluster))


def test_a_kubeconfig_without_contexts_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("{}")
    with pytest.raises(AccessError, match="current-context"):
        of_kubeconfig(tmp_path / "config")


def test_a_broken_ca_is_an_error_of_the_ca(tmp_path: Path) -> None:
    data = base64.b64encode(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").decode()
    path = kubeconfig(tmp_path, {}, server="https://127.0.0.1:1", **{"certificate-authority-data": data})
    with pytest.raises((ValueError, OSError)):
        of_kubeconfig(path).tls()
