"""LoRA adapters: a name and a path. Each generates different text: its name seeds the generator."""

from dataclasses import dataclass
from typing import Any

import msgspec

from quarterdeck.simulator.errors import VLLMError


@dataclass(frozen=True, slots=True)
class Adapter:
    name: str
    path: str
    base: str


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
    def __init__(self, modules: list[str], base: str) -> None:
        self._base = base
        self._loaded = {adapter.name: adapter for adapter in (parse_module(text, base) for text in modules)}

    def __contains__(self, name: str) -> bool:
        return name in self._loaded

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
        self._loaded[name] = Adapter(name, path, self._base)
        return f"Success: LoRA adapter '{name}' added successfully."

    def unload(self, name: str) -> str:
        if not name:
            raise VLLMError("'lora_name' needs to be provided to unload a LoRA adapter.", type="InvalidUserInput")
        if name not in self._loaded:
            raise VLLMError(f"The lora adapter '{name}' cannot be found.", status=404, type="NotFoundError")
        del self._loaded[name]
        return f"Success: LoRA adapter '{name}' removed successfully."
