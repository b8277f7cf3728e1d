"""What the publisher compiles with: objects as the API returned them in, documents and verdicts out."""

import json
from collections.abc import Iterable, Mapping

import yaml

from quarterdeck.kube.compiled import Documents, EngineEntry, EngineIndex
from quarterdeck.kube.resources.model import Model
from quarterdeck.kube.resources.object import InvalidObjectError
from quarterdeck.operator.manifests import Key, Manifest, is_deleting
from quarterdeck.operator.publish import Compilation, Runtime, Verdict
from quarterdeck.operator.render.vllm import max_running
from quarterdeck.operator.settings import OperatorConfig


class Compiler:
    """Compiles with the operator's configuration."""

    def __init__(self, config: OperatorConfig) -> None:
        self._config = config

    def __call__(self, objects: Iterable[Manifest], runtimes: Mapping[str, Runtime]) -> Compilation:
        models = []
        for each in objects:
            if each["kind"] == Model.kind and not is_deleting(each):
                try:
                    models.append(Model.parse(each))
                except InvalidObjectError:
                    continue
        owners: dict[str, str] = {}
        verdicts: dict[Key, Verdict] = {}
        engines: dict[str, EngineEntry] = {}
        for model in sorted(models, key=lambda each: each.metadata.age_key):
            key, generation = Key(Model.kind, model.name), model.metadata.generation
            taken = next((name for name in (model.served_name, *model.spec.aliases) if name in owners), None)
            if taken is not None:
                text = f"'{taken}' is the name of Model {owners[taken]}, which is older."
                verdicts[key] = Verdict(generation, False, "NameConflict", text)
                continue
            owners |= dict.fromkeys((model.served_name, *model.spec.aliases), model.name)
            verdicts[key] = Verdict(generation)
            runtime = runtimes.get(model.name, Runtime())
            if model.has_engine:
                engines[model.name] = EngineEntry(
                    object=model.name,
                    model=model.served_name,
                    task=model.spec.task,
                    max_running=max_running(model),
                    state=runtime.state,
                    detail=runtime.detail,
                )
        config = yaml.safe_dump({**json.loads(json.dumps(self._config.base_config)), "models": []}, sort_keys=True)
        return Compilation(Documents(config, EngineIndex(engines=engines).encode()), verdicts, owners)
