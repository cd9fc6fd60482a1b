"""As much of kustomize as our manifests use, so that they are tested where there is no kubectl.

A kustomization that uses anything else is an error, so that nothing goes untested unseen.
"""

import copy
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]
_KNOWN = {
    "apiVersion",
    "kind",
    "namespace",
    "labels",
    "configMapGenerator",
    "resources",
    "images",
    "patches",
}


def rendered(folder: Path) -> list[Manifest]:
    """The manifests of a kustomization; generated ConfigMaps without the digest in their names."""
    (own,) = documents(folder / "kustomization.yaml")
    assert set(own) <= _KNOWN, set(own) - _KNOWN
    found: list[Manifest] = []
    for resource in own.get("resources", ()):
        path = folder / resource
        found += rendered(path) if path.is_dir() else documents(path)
    for generated in own.get("configMapGenerator", ()):
        data = {Path(name).name: (folder / name).read_text() for name in generated["files"]}
        name = {"name": generated["name"]}
        found.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": name, "data": data})
    found = copy.deepcopy(found)
    for manifest in found:
        metadata = manifest["metadata"]
        for labels in own.get("labels", ()):
            metadata.setdefault("labels", {}).update(labels["pairs"])
        if "namespace" in own:
            metadata["namespace"] = own["namespace"]
        for container in containers(manifest):
            for image in own.get("images", ()):
                if container["image"].partition(":")[0] == image["name"]:
                    container["image"] = f"{image.get('newName', image['name'])}:{image['newTag']}"
    for patch in own.get("patches", ()):
        target = patch["target"]
        (manifest,) = (m for m in found if named(m) == (target["kind"], target["name"]))
        for operation in yaml.safe_load(patch["patch"]):
            _replace(manifest, operation)
    return found


def documents(file: Path) -> list[Manifest]:
    return [one for one in yaml.safe_load_all(file.read_text()) if one is not None]


def named(manifest: Manifest) -> tuple[str, str]:
    return manifest["kind"], manifest["metadata"]["name"]


def containers(manifest: Manifest) -> list[Manifest]:
    pod = manifest.get("spec", {}).get("template", {}).get("spec", {})
    return [*pod.get("initContainers", ()), *pod.get("containers", ())]


def _replace(manifest: Manifest, operation: dict[str, Any]) -> None:
    assert operation["op"] == "replace"
    *parents, last = operation["path"].strip("/").split("/")
    place: Any = manifest
    for part in parents:
        place = place[int(part)] if isinstance(place, list) else place[part]
    key = int(last) if isinstance(place, list) else last
    assert place[key] != operation["value"], f"this changes nothing: {operation}"
    place[key] = operation["value"]
