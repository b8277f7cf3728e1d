"""Requests of the platform's own jobs: a worker's credential instead of a key's secret.

The credential is signed with a secret of the platform's database and names the key that pays. The request acts as that
key, read as any other: one that was revoked is refused, and so is one whose organisation was deleted.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Protocol

from quarterdeck.accounting.principal import Principal
from quarterdeck.errors import AuthenticationError, ServiceUnavailableError
from quarterdeck.protocol.job_credentials import PREFIX, InvalidJobCredentialError, JobClaims, verify

_BEARER = b"Bearer " + PREFIX


class Secret(Protocol):
    async def read(self) -> bytes:
        """Raises ServiceUnavailableError."""
        ...


class Keys(Protocol):
    """What is needed of `Authenticator`."""

    async def principal_of(self, key_id: str, *, org: str) -> Principal: ...


class JobCredentials:
    """Verifies job credentials."""

    def __init__(self, keys: Keys, secret: Secret, *, wall: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._secret = secret
        self._wall = wall

    async def authenticate(self, authorization: bytes | None) -> tuple[Principal, JobClaims] | None:
        """None: it is no job credential. Raises AuthenticationError, and ServiceUnavailableError where it can't be
        checked now."""
        if authorization is None or not authorization.startswith(_BEARER):
            return None
        try:
            claims = verify(authorization[len(b"Bearer ") :].strip(), await self._secret.read(), self._wall())
        except InvalidJobCredentialError as error:
            raise AuthenticationError(f"Invalid job credential: {error}.", code="invalid_job_credential") from error
        except ServiceUnavailableError as error:
            raise ServiceUnavailableError(
                "The job credential can't be checked at the moment.", code="auth_unavailable"
            ) from error
        principal = await self._keys.principal_of(claims.key, org=claims.org)
        if principal.org != claims.org:
            raise AuthenticationError("The API key is of another organisation.", code="invalid_job_credential")
        if claims.priority is not None:
            principal = replace(principal, priority=claims.priority)
        return principal, claims


def keeping_priority(
    reread: Callable[[Principal, int], Awaitable[Principal]],
) -> Callable[[Principal, int], Awaitable[Principal]]:
    """`Authenticator.reread`, by which a job's request does not rise to its key's priority."""

    async def read(principal: Principal, revision: int) -> Principal:
        fresh = await reread(principal, revision)
        return replace(fresh, priority=principal.priority) if principal.priority < 0 <= fresh.priority else fresh

    return read
