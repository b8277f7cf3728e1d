"""Texts that several resources have: public names, sources of weights, quantities."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from quarterdeck.kube.shape import Rule, with_rules
from quarterdeck.settings.prompts import MODEL_PREFIX

MAX_REFERENCE = 256
"""Characters of a name that refers to something; bounds the cost of CEL rules."""
MAX_URL = 1024
MAX_PUBLIC_NAME = 128

PUBLIC_NAME = r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$"
OBJECT_NAME = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
QUANTITY = r"^[0-9]+([.][0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$"
ENV_NAME = r"^[A-Za-z_][A-Za-z0-9_.-]*$"

HUB = r"^(hf://)?[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$"
CLAIM = r"^pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/[A-Za-z0-9._/-]*)?$"
FILE = r"^file:///[A-Za-z0-9._/-]*$"
PACKAGED = r"^packaged:[a-z0-9][a-z0-9._-]*$"


SERVED_NAME = "(has(self.spec.servedName) ? self.spec.servedName : self.metadata.name)"
"""In a CEL rule of a whole object: its public name."""
LONG_NAME = "metadata.name is longer than 128 characters: set servedName"
SHORT_NAME = Rule("has(self.spec.servedName) || self.metadata.name.size() <= 128", LONG_NAME)
"""Of a whole object whose public name is its own unless the spec has one."""


def _is_no_prompt(name: str) -> str:
    if name.startswith(MODEL_PREFIX):
        raise ValueError(f"names that begin with `{MODEL_PREFIX}` are prompts")
    return name


PublicName = Annotated[
    str,
    Field(
        pattern=PUBLIC_NAME,
        max_length=128,
        json_schema_extra=with_rules(
            Rule(f"!self.startsWith('{MODEL_PREFIX}')", f"names that begin with `{MODEL_PREFIX}` are prompts")
        ),
    ),
    AfterValidator(_is_no_prompt),
]
"""A name that clients use as `model`."""
ModelName = Annotated[str, Field(min_length=1, max_length=MAX_REFERENCE)]
"""A reference to a public name."""
Quantity = Annotated[str, Field(pattern=QUANTITY, max_length=32)]
"""Kubernetes' quantity without exponent and sign."""
ObjectName = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
"""Name of an object of the same namespace."""

_SOURCES = "hf://org/name, org/name, pvc://claim/path, file:///path"


def _matches(uri: str, *patterns: str) -> bool:
    return any(re.fullmatch(pattern.strip("^$"), uri) for pattern in patterns) and "/../" not in f"{uri}/"


def _is_weights(uri: str) -> str:
    if not _matches(uri, HUB, CLAIM, FILE, PACKAGED):
        raise ValueError(f"must be one of {_SOURCES}, packaged:name, without `..`")
    return uri


def _is_adapter(uri: str) -> str:
    if not _matches(uri, HUB, CLAIM, FILE):
        raise ValueError(f"must be one of {_SOURCES}, without `..`")
    return uri


def _rule(*patterns: str, message: str) -> Rule:
    matches = " || ".join(f"self.matches('{pattern}')" for pattern in patterns)
    return Rule(f"({matches}) && !self.contains('/../') && !self.endsWith('/..')", message)


WeightsUri = Annotated[
    str,
    Field(
        min_length=1,
        max_length=1024,
        json_schema_extra=with_rules(
            _rule(HUB, CLAIM, FILE, PACKAGED, message=f"must be one of {_SOURCES}, packaged:name, without `..`")
        ),
    ),
    AfterValidator(_is_weights),
]
AdapterUri = Annotated[
    str,
    Field(
        min_length=1,
        max_length=1024,
        json_schema_extra=with_rules(_rule(HUB, CLAIM, FILE, message=f"must be one of {_SOURCES}, without `..`")),
    ),
    AfterValidator(_is_adapter),
]


def is_hub(uri: str) -> bool:
    """Whether the weights are downloaded from Hugging Face's hub."""
    return re.fullmatch(HUB, uri) is not None


def hub_id(uri: str) -> str:
    """`org/name` of a source on the hub."""
    return uri.removeprefix("hf://")
