"""The list of images that the chart's default values name, for `quarterdeck images`."""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml


def chart_images(values: Mapping[str, Any], app_version: str) -> dict[str, str]:
    """Image by the place of its values (`gateway`, `engines.vllm`), with registry and tag."""
    found = {}
    for place, image in _images(values, ()):
        registry = image["registry"] or ("docker.io" if "/" in image["repository"] else "localhost")
        tag = f"@{image['digest']}" if image.get("digest") else f":{image['tag'] or app_version}"
        found[".".join(place).removesuffix(".image")] = f"{registry}/{image['repository']}{tag}"
    return found


def _images(values: Mapping[str, Any], place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    if {"registry", "repository", "tag"} <= values.keys():
        yield place, values
        return
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _images(value, (*place, name))


def chart_images_file(values_text: str, chart_text: str, notice: str) -> str:
    """The file that the command reads."""
    found = chart_images(yaml.safe_load(values_text), str(yaml.safe_load(chart_text)["appVersion"]))
    return f"# {notice}\n{yaml.safe_dump(found, sort_keys=True)}"
