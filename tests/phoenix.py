"""Arize Phoenix, a trace backend, from its own environment (`make env-phoenix`), and its API."""

import json
import os
import re
from pathlib import Path
from typing import Any

import httpx
from tests.platform import DoorProcess, free_port

from quarterdeck.record import RequestRecord

CHECKOUT = Path(__file__).resolve().parents[1]
SPANS = """
query { projects { edges { node { name traceCount tokenCountTotal costSummary { total { cost } } spans(first: 1000) {
  edges { node { name spanId parentId spanKind statusCode tokenCountTotal trace { traceId }
                 costSummary { total { cost } } attributes } }
} } } } }
"""
TRACES = "query { projects { edges { node { name traceCount } } } }"
COUNTED = """
query Counted($after: String, $filter: String, $attributes: Boolean!) { projects { edges { node { name
  spans(first: 1000, after: $after, filterCondition: $filter) {
  pageInfo { hasNextPage endCursor }
  edges { node { parentId spanKind tokenCountTotal trace { traceId } costSummary { total { cost } }
                 attributes @include(if: $attributes) } }
} } } } }
"""
PRICE = """
mutation Price($name: String!, $pattern: String!, $input: Float!, $cached: Float!, $output: Float!) {
  createModel(input: {name: $name, namePattern: $pattern, costs: [
    {kind: PROMPT, tokenType: "input", costPerMillionTokens: $input},
    {kind: PROMPT, tokenType: "cache_read", costPerMillionTokens: $cached},
    {kind: COMPLETION, tokenType: "output", costPerMillionTokens: $output}]}) { query { __typename } } }
"""


class Phoenix:
    """Its API."""

    def __init__(self, url: str, client: httpx.Client) -> None:
        self.url = url
        self._client = client

    def ask(self, query: str, **variables: Any) -> Any:
        answer = (
            self._client.post(f"{self.url}/graphql", json={"query": query, "variables": variables})
            .raise_for_status()
            .json()
        )
        assert "errors" not in answer, answer
        return answer["data"]

    def project(self) -> dict[str, Any]:
        nodes = [edge["node"] for edge in self.ask(SPANS)["projects"]["edges"]]
        found: dict[str, Any] = next((node for node in nodes if node["name"] == "default"), {})
        return found

    def spans(self) -> list[dict[str, Any]]:
        return [edge["node"] for edge in self.project().get("spans", {}).get("edges", [])]

    def price(self, record: RequestRecord) -> None:
        """Have it price the model's calls by itself, as the record was priced."""
        prices = {"input": record.price_input, "cached": record.price_cached, "output": record.price_output}
        numbers = {name: float(price) for name, price in prices.items()}
        self.ask(PRICE, name=record.model, pattern=f"^{re.escape(record.model)}$", **numbers)

    def traces(self) -> int:
        """How many there are. The caller polls this: a long list of spans takes it away from storing them."""
        nodes = [edge["node"] for edge in self.ask(TRACES)["projects"]["edges"]]
        return sum(node["traceCount"] for node in nodes if node["name"] == "default")

    def tokens_of_embeddings(self) -> dict[str, int]:
        """By trace id. Phoenix keeps them as an attribute, and counts those of models that generate only."""
        found = self.counted("span_kind == 'EMBEDDING'", attributes=True)
        return {
            span["trace"]["traceId"]: json.loads(span["attributes"])["llm"]["token_count"]["prompt"] for span in found
        }

    def counted(self, condition: str | None = None, *, attributes: bool = False) -> list[dict[str, Any]]:
        """Every span's trace, kind, parent, tokens and cost."""
        found: list[dict[str, Any]] = []
        after: str | None = None
        while True:
            nodes = [
                edge["node"]
                for edge in self.ask(COUNTED, after=after, filter=condition, attributes=attributes)["projects"]["edges"]
            ]
            project = next((node for node in nodes if node["name"] == "default"), None)
            if project is None:
                return found
            found += [edge["node"] for edge in project["spans"]["edges"]]
            if not project["spans"]["pageInfo"]["hasNextPage"]:
                return found
            after = project["spans"]["pageInfo"]["endCursor"]


class PhoenixProcess(DoorProcess):
    """Phoenix with an empty database in `folder`. It takes half a minute to start."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "phoenix", "/healthz")
        self._folder = folder / "phoenix"

    def command(self) -> list[str]:
        python = CHECKOUT / ".envs/phoenix/bin/python"
        if not python.exists():
            raise FileNotFoundError(f"{python}: run `make env-phoenix`")
        environ = {
            "PHOENIX_WORKING_DIR": self._folder,
            "PHOENIX_HOST": "127.0.0.1",
            "PHOENIX_PORT": self.port,
            "PHOENIX_GRPC_PORT": free_port(),
            "PHOENIX_TELEMETRY_ENABLED": "false",
            "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false",
        }
        unset = [word for name in os.environ if name.startswith(("PHOENIX_", "OTEL_")) for word in ("-u", name)]
        words = [f"{name}={value}" for name, value in environ.items()]
        return ["env", *unset, *words, str(python), "-m", "phoenix.server.main", "serve"]
