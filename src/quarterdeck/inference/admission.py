"""Admits a request and makes its call: the look-up in the cache, the reservation, and what the engine is sent."""

import time
from collections.abc import Awaitable, Callable

import msgspec

from quarterdeck.accounting.settlement import Settlement
from quarterdeck.inference.bounds import Bounds
from quarterdeck.inference.cache.answers import AnswerCache, Lookup
from quarterdeck.inference.call import Head
from quarterdeck.inference.call_state import Call
from quarterdeck.inference.endpoints.endpoint import Endpoints
from quarterdeck.inference.estimation import Estimate
from quarterdeck.inference.gate import Gate
from quarterdeck.inference.metering.meter import Meter
from quarterdeck.inference.metering.record_templates import RecordTemplates
from quarterdeck.inference.preparation import cache_salt, prepare_body
from quarterdeck.inference.prompts.execution import HEADER
from quarterdeck.inference.request import InferenceRequest
from quarterdeck.inference.routing.directory import ServedModel
from quarterdeck.inference.routing.selection import Selection
from quarterdeck.settings.config import GatewayConfig


class Admission:
    """`count_prompt` has a model's tokenizer count a prompt, as in `Gate.admit`."""

    def __init__(
        self,
        gate: Gate,
        cache: AnswerCache,
        endpoints: Endpoints,
        settlement: Settlement,
        templates: RecordTemplates,
        count_prompt: Callable[[InferenceRequest, ServedModel, bytes], Awaitable[int | None]],
    ) -> None:
        self._gate = gate
        self._cache = cache
        self._endpoints = endpoints
        self._settlement = settlement
        self._templates = templates
        self._count_prompt = count_prompt

    async def admit(
        self,
        gateway: GatewayConfig,
        head: Head,
        request: InferenceRequest,
        reserved: Estimate,
        selection: Selection,
        bounds: Bounds,
    ) -> Call:
        """Raises APIError where the request is refused. The reservation is renewed until the call is settled."""
        served, route = selection.served, selection.route
        salt = cache_salt(request, head.principal.org, is_isolated=gateway.isolate_prefix_cache)
        body = prepare_body(request, served, head.principal.max_tokens, salt=salt)
        lookup = self._look_up(head, request, served) if self._cache.is_on else None
        admitted = await self._gate.admit(
            head,
            request,
            served,
            reserved,
            lookup=lookup,
            gateway=gateway,
            body=body,
            count_prompt=self._count_prompt,
        )
        if admitted.principal is not head.principal:
            head = msgspec.structs.replace(head, principal=admitted.principal)
        reserved = admitted.reserved or reserved
        is_limited = not reserved.is_open or bounds.context is not None
        caps_others = False
        if head.principal.scope_set.denies and route.has_price:
            # An answer may not cost more than is held for it.
            if reserved.limit is not None:
                body = prepare_body(request, served, reserved.limit, salt=salt)
                is_limited = True
            else:
                caps_others = not is_limited
            if lookup is not None:
                lookup.is_capped = reserved.is_open and (caps_others or reserved.limit is not None)
        meter = Meter(
            head,
            served,
            request.parsed,
            route=route.name if route.is_named else "",
            templates=self._templates,
            reserved=reserved,
            is_limited=is_limited,
            prompt=request.prompt,
            admitted=time.time(),
        )
        headers = admitted.headers
        if request.prompt is not None:
            headers += ((HEADER, request.prompt.text.encode()),)
        call = Call(
            head,
            request,
            body,
            meter,
            reserved,
            selection,
            lookup,
            admitted.found,
            headers,
            admitted.is_local,
            caps_others=caps_others,
            held=admitted.held,
        )
        if call.found is None and not call.is_local:
            self._settlement.begin(head.principal.org, head.request_id, call.note)
        return call

    def _look_up(self, head: Head, request: InferenceRequest, served: ServedModel) -> Lookup | None:
        return self._cache.look_up(
            head,
            request,
            served,
            weights=self._weights(served),
            prompt_version=request.prompt.text if request.prompt is not None else "",
        )

    def _weights(self, served: ServedModel) -> str:
        """What identifies a model's weights. While it is replaced its endpoints differ, and the first one counts."""
        for endpoint in self._endpoints.serving(served.name):
            spec = endpoint.spec
            if (spec.version or spec.engine_names) and (weights := spec.weights_of(served.name)):
                return weights
        return ""
