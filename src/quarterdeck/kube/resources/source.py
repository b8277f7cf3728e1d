"""Where a model's weights come from."""

from typing import Literal, Self

from pydantic import ConfigDict, Field, model_validator

from quarterdeck.kube.resources.embedded import SecretKeyRef
from quarterdeck.kube.resources.texts import ObjectName, Quantity, WeightsUri, is_hub
from quarterdeck.kube.shape import Rule, Shape, with_rules


class Cache(Shape):
    """Where downloaded weights are kept."""

    model_config = ConfigDict(
        json_schema_extra=with_rules(
            Rule(
                "self.mode == 'pvc' ? has(self.claim) != has(self.size) : !has(self.claim) && !has(self.size)",
                "mode pvc needs either claim or size, mode none has neither",
            ),
            Rule("!has(self.storageClass) || has(self.size)", "storageClass is for a claim that `size` creates"),
            Rule(
                "!has(self.size) || !has(oldSelf.size) || quantity(self.size).compareTo(quantity(oldSelf.size)) >= 0",
                "size of an existing claim can't shrink: set mode none first",
            ),
            Rule(
                "!has(self.size) || !has(oldSelf.size) || (has(self.storageClass) == has(oldSelf.storageClass) && "
                "(!has(self.storageClass) || self.storageClass == oldSelf.storageClass))",
                "storageClass of an existing claim can't change: set mode none first",
            ),
        )
    )

    mode: Literal["none", "pvc"] = "none"
    """none: each pod downloads the weights. pvc: a volume keeps them between pods and restarts."""
    claim: ObjectName | None = None
    """An existing PersistentVolumeClaim. Unset: the operator creates one of `size`."""
    size: Quantity | None = None
    """Size of the claim that the operator creates, such as `50Gi`."""
    storage_class: ObjectName | None = None
    """Storage class of that claim. Unset: the cluster's default."""

    @model_validator(mode="after")
    def _has_a_volume_if_it_needs_one(self) -> Self:
        if (self.claim is None) == (self.size is None) if self.mode == "pvc" else self.claim or self.size:
            raise ValueError("mode pvc needs either claim or size, mode none has neither")
        if self.storage_class is not None and self.size is None:
            raise ValueError("storageClass is for a claim that `size` creates")
        return self


class Source(Shape):
    """Where the weights come from."""

    model_config = ConfigDict(
        json_schema_extra=with_rules(
            Rule(
                "!(self.uri.startsWith('pvc:') || self.uri.startsWith('file:') || self.uri.startsWith('packaged:')) || "
                "!(has(self.revision) || has(self.secretRef) || (has(self.cache) && self.cache.mode != 'none'))",
                "revision, secretRef and cache are for sources on the hub (hf://org/name)",
            ),
        )
    )

    uri: WeightsUri
    """`hf://org/name` or `org/name` (Hugging Face), `pvc://claim/path`, `file:///path` in the image, or
    `packaged:name`."""
    revision: str | None = Field(default=None, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")
    """Branch, tag or commit of the repository. Unset: its main branch."""
    secret_ref: SecretKeyRef | None = None
    """The Secret's key that holds the hub's access token."""
    cache: Cache = Cache()
    """Where downloaded weights are kept."""

    @model_validator(mode="after")
    def _is_downloaded_if_it_says_how(self) -> Self:
        if not is_hub(self.uri) and (self.revision or self.secret_ref or self.cache.mode != "none"):
            raise ValueError("revision, secretRef and cache are for sources on the hub (hf://org/name)")
        return self
