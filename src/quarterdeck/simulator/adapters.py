"""LoRA adapters: a name and a path. Each generates different text: its weights seed the generator.

A folder that exists is read when it is loaded, and its content is the weights; a path that doesn't exist is accepted,
and the name is the weights. As in vLLM, an adapter loaded with `load_inplace` is read again for each request, and the
engine ends if its folder has disappeared; and the prefix cache knows an adapter by its name only.

A path whose last part is one of FAILURES is refused, with what vLLM 0.29 answers.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from quarterdeck.simulator.errors import VLLMError

FAILURES = {
    "fail-rank": "LoRA rank 64 is greater than max_lora_rank 16.",
    "fail-base": "The size of tensor a (576) must match the size of tensor b (4096) at non-singleton dimension 1",
    "fail-damaged": "Error while deserializing header: invalid header length",
}
"""What the engine's worker says, by the last part of a path. Besides these: `fail-missing`, a folder without adapter,
and `fail-probe`, which is loaded and fails each request."""


@dataclass(frozen=True, slots=True)
class Adapter:
    name: str
    path: str
    base: str
    weights: str = ""
    """Seeds the text. Empty: the name."""
    inplace: bool = False


def parse_module(text: str, base: str) -> Adapter:
    """Parse either of vLLM's forms: name=path, or a JSON object. Raises ValueError."""
    if text.lstrip().startswith("{"):
        fields: dict[str, Any] = msgspec.json.decode(text, type=dict[str, Any])
        if not fields.get("name"):
            raise ValueError(f"lora-modules: no name in {text}")
        return Adapter(str(fields["name"]), str(fields.get("path", "")), str(fields.get("base_model_name") or base))
    name, sign, path = text.partition("=")
    if not name or not sign:
        raise ValueError(f"lora-modules: '{text}' is neither name=path nor a JSON object")
    return Adapter(name, path, base)


class Adapters:
    def __init__(self, modules: list[str], base: str, max_rank: int) -> None:
        self._base, self._max_rank = base, max_rank
        parsed = [parse_module(text, base) for text in modules]
        self._loaded = {each.name: Adapter(each.name, each.path, each.base, _weights(each.path)) for each in parsed}

    def __contains__(self, name: str) -> bool:
        return name in self._loaded

    def weights(self, name: str) -> str:
        """What seeds an adapter's text now. Raises FileNotFoundError where vLLM's engine core ends."""
        adapter = self._loaded[name]
        if Path(adapter.path).name == "fail-probe":
            raise VLLMError("EngineCore encountered an issue.", status=500, type="InternalServerError")
        weights = adapter.weights
        if adapter.inplace and weights:
            weights = _weights(adapter.path)
            if not weights:
                raise FileNotFoundError(adapter.path)
        return weights or name

    def all(self) -> list[Adapter]:
        return list(self._loaded.values())

    def load(self, name: str, path: str, *, inplace: bool = False) -> str:
        if not name or not path:
            raise VLLMError("Both 'lora_name' and 'lora_path' must be provided.", type="InvalidUserInput")
        if name in self._loaded and not inplace:
            raise VLLMError(
                f"The lora adapter '{name}' has already been loaded. If you want to load the adapter in place, set "
                "'load_inplace' to True.",
                type="InvalidUserInput",
            )
        self._refuse_unusable(name, path)
        self._loaded[name] = Adapter(name, path, self._base, _weights(path), inplace)
        return f"Success: LoRA adapter '{name}' added successfully."

    def unload(self, name: str) -> str:
        if not name:
            raise VLLMError("'lora_name' needs to be provided to unload a LoRA adapter.", type="InvalidUserInput")
        if name not in self._loaded:
            raise VLLMError(f"The lora adapter '{name}' cannot be found.", status=404, type="NotFoundError")
        del self._loaded[name]
        return f"Success: LoRA adapter '{name}' removed successfully."

    def _refuse_unusable(self, name: str, path: str) -> None:
        last = Path(path).name
        if last == "fail-missing":
            message = f"Loading lora {name} failed: No adapter found for {path}"
            raise VLLMError(message, status=404, type="NotFoundError")
        problem, rank = FAILURES.get(last), _rank(path)
        if rank > self._max_rank:
            problem = f"LoRA rank {rank} is greater than max_lora_rank {self._max_rank}."
        if problem is not None:
            raise VLLMError(
                f"Call to add_lora method failed: Worker failed with error '{problem}', please check the stack trace "
                "above for the root cause",
                status=500,
                type="InternalServerError",
            )


def _rank(path: str) -> int:
    """The rank in the folder's configuration; 0 without one."""
    try:
        config = msgspec.json.decode((Path(path) / "adapter_config.json").read_bytes(), type=dict[str, Any])
    except (OSError, ValueError, msgspec.DecodeError):
        return 0
    rank = config.get("r", 0)
    return rank if isinstance(rank, int) else 0


def _weights(path: str) -> str:
    """A digest of the folder's files. Empty if there is no such folder."""
    folder = Path(path)
    if not path or not folder.is_dir():
        return ""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("adapter_*")):
        digest.update(file.name.encode() + b"\n" + file.read_bytes())
    return digest.hexdigest()
