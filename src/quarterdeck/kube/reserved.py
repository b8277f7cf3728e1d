"""Secrets, volume claims and service accounts that are the platform's own, which no custom resource may name.

Who may create Models need not be allowed to read Secrets. What a Model names, the operator hands out: to the server
of an endpoint, or to an engine's pod. The platform's own would be its admin key, its passwords and its database.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from quarterdeck.kube.names import is_ray_token
from quarterdeck.kube.resources.adapter import ModelAdapter
from quarterdeck.kube.resources.model import Model
from quarterdeck.kube.resources.object import Resource

HELM_PREFIX = "sh.helm.release."
"""Secrets in which Helm keeps releases, with all their values."""
_REFERENCES = frozenset({"secret", "secretRef", "secretKeyRef", "nodePublishSecretRef"})
"""Members of a pod that name a Secret by `name`."""


class Reserved(BaseModel):
    """Names in the operator's namespace."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, alias_generator=to_camel, populate_by_name=True
    )

    secrets: frozenset[str] = Field(default=frozenset())
    """Admin key, tokens, passwords, collected keys."""
    claims: frozenset[str] = Field(default=frozenset())
    """Volumes of the database and of Redis."""
    service_accounts: frozenset[str] = Field(default=frozenset())
    """Accounts of gateway, worker, operator and hooks."""

    def problem_of(self, each: Resource) -> str | None:
        """What a Model or ModelAdapter names that it may not. None: nothing."""
        if isinstance(each, ModelAdapter):
            return self._problem((), _claim_of("spec.source.uri", each.spec.source.uri))
        if not isinstance(each, Model):
            return None
        spec, source = each.spec, each.spec.source
        secrets = [
            (f"spec.endpoints[{at}].secretRef", endpoint.secret_ref.name)
            for at, endpoint in enumerate(spec.endpoints)
            if endpoint.secret_ref is not None
        ]
        claims: list[tuple[str, str]] = []
        if source is not None:
            if source.secret_ref is not None:
                secrets.append(("spec.source.secretRef", source.secret_ref.name))
            claims += _claim_of("spec.source.uri", source.uri)
            if source.cache.claim is not None:
                claims.append(("spec.source.cache.claim", source.cache.claim))
        return self._problem(secrets, claims)

    def problem_of_template(self, template: Mapping[str, Any]) -> str | None:
        """What a pod template names that no engine may have. None: nothing."""
        spec = template.get("spec") or {}
        for member in ("serviceAccountName", "serviceAccount"):
            if (name := spec.get(member)) in self.service_accounts:
                return f"podTemplatePatch: ServiceAccount {name!r} is the platform's own, and no engine may have it"
        where = "podTemplatePatch"
        return self._problem(
            ((where, name) for name in _secrets_in(spec)), ((where, name) for name in _claims_in(spec))
        )

    def _problem(self, secrets: Iterable[tuple[str, str]], claims: Iterable[tuple[str, str]]) -> str | None:
        for where, name in secrets:
            if name in self.secrets or name.startswith(HELM_PREFIX) or is_ray_token(name):
                return f"{where}: Secret {name!r} is the platform's own: put the key into a Secret of its own"
        for where, name in claims:
            if name in self.claims:
                return f"{where}: PersistentVolumeClaim {name!r} is the platform's own, and no engine may mount it"
        return None


NOTHING = Reserved()
"""Without a chart that says what it has made."""


def _claim_of(where: str, uri: str) -> list[tuple[str, str]]:
    return [(where, uri.removeprefix("pvc://").partition("/")[0])] if uri.startswith("pvc://") else []


def _secrets_in(node: Any) -> Iterator[str]:
    for name, value in _members(node):
        if name == "secretName" and isinstance(value, str):
            yield value
        elif name in _REFERENCES and isinstance(value, Mapping) and isinstance(value.get("name"), str):
            yield value["name"]


def _claims_in(node: Any) -> Iterator[str]:
    return (value for name, value in _members(node) if name == "claimName" and isinstance(value, str))


def _members(node: Any) -> Iterator[tuple[str, Any]]:
    """All members of all objects, without recursion: a patch may be nested as deeply as the API server allows."""
    left = [node]
    while left:
        each = left.pop()
        if isinstance(each, Mapping):
            yield from each.items()
            left += each.values()
        elif isinstance(each, list):
            left += each
