"""Request bodies that create and change webhook endpoints, and endpoints and deliveries as the API shows them."""

from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from quarterdeck.errors import BadRequestError
from quarterdeck.net.public_addresses import may_be_public
from quarterdeck.resources.tenancy.requests import Name
from quarterdeck.resources.webhooks.events import EVENT_TYPES
from quarterdeck.store.webhook_outbox import Delivery
from quarterdeck.store.webhooks import WebhookEndpoint

Url = Annotated[str, Field(min_length=1, max_length=2048)]
EventTypes = Annotated[list[str], Field(min_length=1, max_length=100)]


class WebhookUpdate(BaseModel):
    """The body of `POST /admin/webhooks/{webhook_id}`: a field that is left out keeps its value."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    url: Url | None = None
    """Where events are posted to: http:// or https://, on a public address unless `webhooks.allow_private_addresses`
    is set."""
    name: Name | None = None
    """Shown in lists."""
    event_types: EventTypes | None = None
    """The events to send. null: all, those of later versions too."""
    enabled: bool | None = None
    """false: nothing is sent. What happens meanwhile is not recorded for it; what waits already waits for a day."""

    @field_validator("event_types")
    @classmethod
    def _are_known(cls, types: list[str] | None) -> list[str] | None:
        for each in types or ():
            if each not in EVENT_TYPES:
                raise ValueError(f"unknown event type '{each[:64]}'; supported are: {', '.join(EVENT_TYPES)}")
        return types if types is None else list(dict.fromkeys(types))

    @field_validator("url")
    @classmethod
    def _is_a_url(cls, url: str | None) -> str | None:
        if url is not None and (problem := problem_of(url)) is not None:
            raise ValueError(problem)
        return url

    @field_validator("url", "name", "enabled")
    @classmethod
    def _is_not_null(cls, value: Any) -> Any:
        if value is None:  # a field that is left out is not validated
            raise ValueError("can't be null")
        return value


class WebhookRequest(WebhookUpdate):
    """The body of `POST /admin/webhooks`."""

    url: Url
    """Where events are posted to: http:// or https://, on a public address unless `webhooks.allow_private_addresses`
    is set."""
    name: Name = "webhook"
    """Shown in lists."""


class SecretRotation(BaseModel):
    """The body of `POST /admin/webhooks/{webhook_id}/rotate_secret`."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    keep_old_secret_active_for_24_hours: bool = False
    """Whether deliveries are signed with the former secret as well for a day."""


class WebhookTest(BaseModel):
    """The body of `POST /admin/webhooks/{webhook_id}/test`."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    event_type: str | None = Field(default=None, max_length=64)
    """For OpenAI's SDK, which sends one. The event is a `webhook.test` whatever it says."""


def problem_of(url: str) -> str | None:
    """Why a URL can't be posted to. None: it can."""
    if not url.isascii() or any(char.isspace() or not char.isprintable() for char in url):
        return "must be ASCII without spaces: use punycode for the host and percent-encoding for the path"
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return "is not a URL"
    if parts.scheme not in ("http", "https") or not has_host:
        return "must begin with http:// or https:// and name a host"
    if parts.username is not None or parts.password is not None:
        return "can't hold credentials; verify the signature instead"
    return None


def check_address(url: str, *, allows_private: bool) -> None:
    """Refuse a URL that leads into a private network by its host alone. Names are checked again at each delivery.
    Raises BadRequestError."""
    if not allows_private and not may_be_public(urlsplit(url).hostname or ""):
        raise BadRequestError(
            "The URL leads to a private address. The operator can allow it: webhooks.allow_private_addresses.",
            param="url",
            code="private_address",
        )


def endpoint_object(endpoint: WebhookEndpoint, *, secret: str | None = None) -> dict[str, Any]:
    """An endpoint. `secret`: shown where it was just made."""
    found: dict[str, Any] = {
        "id": endpoint.id,
        "object": "webhook_endpoint",
        "name": endpoint.name,
        "url": endpoint.url,
        "event_types": list(endpoint.event_types if endpoint.event_types is not None else EVENT_TYPES),
        "all_event_types": endpoint.event_types is None,
        "enabled": endpoint.disabled is None,
        "disabled_reason": endpoint.disabled_reason,
        "signing_secret_hint": f"whsec_…{endpoint.secret[-4:]}",
        "created_at": int(endpoint.created),
        "updated_at": int(endpoint.updated),
    }
    return found if secret is None else {**found, "signing_secret": secret}


def delivery_object(delivery: Delivery) -> dict[str, Any]:
    """A delivery. `next_attempt_at`: Unix seconds; null: none follows."""
    return {
        "id": delivery.id,
        "object": "webhook_delivery",
        "event_id": delivery.event,
        "event_type": delivery.event_type,
        "status": delivery.state,
        "attempts": delivery.attempts,
        "status_code": delivery.status,
        "error": delivery.error,
        "created_at": int(delivery.created),
        "next_attempt_at": int(delivery.due) if delivery.state == "pending" else None,
        "finished_at": None if delivery.finished is None else int(delivery.finished),
    }
