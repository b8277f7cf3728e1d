"""The software bill of materials of an image: CycloneDX 1.5 JSON, from the metadata of its Python distributions and
Debian packages. `COLLECT` runs in the image, `document` is pure.
"""

import json
import re
import uuid
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

COLLECT = r"""
import importlib.metadata as metadata, json, platform, re
def licence(about):
    if about.get("License-Expression"):
        return {"expression": about["License-Expression"]}
    names = [one.rpartition(" :: ")[2] for one in about.get_all("Classifier") or () if one.startswith("License ::")]
    text = about.get("License") or ""
    return {"names": names or ([text.strip()] if text.strip() and len(text) < 80 and "\n" not in text.strip() else [])}
python = {}
for one in metadata.distributions():
    about = one.metadata
    name = re.sub(r"[-_.]+", "-", about["Name"]).lower()
    needs = [re.match(r"[A-Za-z0-9._-]+", each)[0] for each in one.requires or () if "extra ==" not in each]
    python[name] = {"version": one.version, "summary": about.get("Summary") or "", **licence(about),
        "needs": sorted({re.sub(r"[-_.]+", "-", each).lower() for each in needs})}
debian = {}
try:
    blocks = open("/var/lib/dpkg/status", encoding="utf-8").read().split("\n\n")
except OSError:
    blocks = []
for block in blocks:
    fields = dict(re.findall(r"^(Package|Version|Architecture|Status): (.*)$", block, re.MULTILINE))
    if fields.get("Status", "").endswith(" installed"):
        debian[fields["Package"]] = {"version": fields["Version"], "architecture": fields["Architecture"]}
print(json.dumps({"python": python, "debian": debian, "interpreter": platform.python_version()}))
"""

Component = dict[str, Any]


def document(name: str, version: str, found: Mapping[str, Any]) -> Component:
    """The bill of an image from what COLLECT found in it. Equal input, equal output: it holds no time, and its serial
    number follows from its content."""
    python = [_distribution(each, about) for each, about in sorted(found["python"].items())]
    debian = [_package(each, about) for each, about in sorted(found["debian"].items())]
    interpreter = found["interpreter"]
    runtime = {
        "type": "platform",
        "bom-ref": f"python@{interpreter}",
        "name": "CPython",
        "version": interpreter,
        "purl": f"pkg:generic/python@{interpreter}",
        "licenses": [{"license": {"id": "Python-2.0"}}],
    }
    image: Component = {"type": "container", "bom-ref": f"{name}@{version}", "name": name, "version": version}
    references = {each["name"]: each["bom-ref"] for each in python}
    needs = [
        {
            "ref": references[each],
            "dependsOn": sorted(references[one] for one in about["needs"] if one in references and one != each),
        }
        for each, about in sorted(found["python"].items())
    ]
    components = [runtime, *python, *debian]
    body: Component = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": image, "tools": [{"vendor": "Quarterdeck", "name": "scripts/images"}]},
        "components": components,
        "dependencies": [
            {"ref": image["bom-ref"], "dependsOn": sorted(each["bom-ref"] for each in components)},
            *needs,
        ],
    }
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(body, sort_keys=True))
    return {**body, "serialNumber": f"urn:uuid:{serial}"}


def _distribution(name: str, about: Mapping[str, Any]) -> Component:
    purl = f"pkg:pypi/{name}@{quote(about['version'], safe='')}"
    component: Component = {"type": "library", "bom-ref": purl, "name": name, "version": about["version"], "purl": purl}
    if about.get("summary"):
        component["description"] = re.sub(r"\s+", " ", about["summary"])
    if about.get("expression"):
        component["licenses"] = [{"expression": about["expression"]}]
    elif about.get("names"):
        component["licenses"] = [{"license": {"name": each}} for each in about["names"]]
    return component


def _package(name: str, about: Mapping[str, str]) -> Component:
    version = quote(about["version"], safe="")
    purl = f"pkg:deb/debian/{quote(name, safe='')}@{version}?arch={about['architecture']}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": about["version"], "purl": purl}
