"""A gateway's `/v1/prompts`, with the platform's admin key."""

from typing import Any
from urllib.parse import quote

from quarterdeck.kube.resources.prompt import Prompt
from quarterdeck.operator.gateway_client import GatewayClient
from quarterdeck.operator.prompts.plan import Plan, PlatformPrompt

PATH = "/v1/prompts"


class PromptClient(GatewayClient):
    """`/v1/prompts`."""

    async def find(self, name: str) -> PlatformPrompt | None:
        """The prompt of this name, archived or not. Raises GatewayError."""
        found = (await self.call("GET", PATH, params={"name": name, "archived": "true"}))["data"]
        if not found:
            return None
        prompt = found[0]
        version = await self.call("GET", f"{PATH}/{prompt['id']}/versions/latest")
        return PlatformPrompt(
            id=prompt["id"],
            latest_version=prompt["latest_version"],
            digest=version["digest"],
            description=prompt["description"] or "",
            teams=None if prompt["teams"] is None else tuple(prompt["teams"]),
            is_archived=prompt["archived"] is not None,
            labels=prompt["labels"],
        )

    async def carry_out(self, plan: Plan, prompt: Prompt, known: PlatformPrompt | None) -> int:
        """Make the changes; returns the newest version's number. What was done before a failure is not done again by
        the next plan. Raises GatewayError."""
        content = prompt.version().content() | {"message": f"{prompt.ref}, generation {prompt.metadata.generation}"}
        if known is None:
            spec = prompt.spec
            own: dict[str, Any] = {"name": prompt.prompt_name, "labels": list(spec.labels)}
            if spec.description is not None:
                own["description"] = spec.description
            if spec.teams is not None:
                own["teams"] = list(spec.teams)
            made = await self.call("POST", PATH, content | own)
            return int(made["latest_version"])
        path = f"{PATH}/{quote(known.id, safe='')}"
        if plan.update:
            await self.call("POST", path, plan.update)
        number = known.latest_version
        if plan.add_version:
            number = int((await self.call("POST", f"{path}/versions", content))["version"])
        for label in plan.labels:
            await self.call("POST", f"{path}/labels/{label}", {"version": number})
        return number

    async def archive(self, name: str) -> None:
        """Archive the prompt of this name, if there is one. Raises GatewayError."""
        known = await self.find(name)
        if known is not None and not known.is_archived:
            await self.call("POST", f"{PATH}/{known.id}", {"archived": True})
