"""As much of kustomize as deploy/kustomize uses: resources, namespace, images, config maps from files, strategic merge patches.

For machines without kubectl; where there is one, kubernetes_test.py holds the two against each other. Unknown members are refused.
"""
import copy
import pathlib

import yaml

# The key by which a list of objects is merged; other lists are replaced.
_MERGE_KEYS = {"containers": "name", "env": "name", "volumes": "name", "volumeMounts": "mountPath"}
_MEMBERS = {"apiVersion", "kind", "namespace", "resources", "images", "configMapGenerator", "patches"}


def _key(name, parent):
    if name == "ports":
        return "port" if parent == "Service" else "containerPort"
    return _MERGE_KEYS.get(name)


def merge(base, patch, kind, name=""):
    if isinstance(base, dict) and isinstance(patch, dict):
        result = dict(base)
        for key, value in patch.items():
            if value is None:
                result.pop(key, None)
            else:
                result[key] = merge(base[key], value, kind, key) if key in base else value
        return result
    key = _key(name, kind)
    if not (isinstance(base, list) and isinstance(patch, list) and key):
        return patch
    result = list(base)
    for item in patch:
        at = next((i for i, old in enumerate(result) if old[key] == item[key]), None)
        if item.get("$patch") == "delete":
            assert at is not None, f"{name}: nothing to delete at {item[key]}"
            del result[at]
        elif at is None:
            result.append(item)
        else:
            result[at] = merge(result[at], item, kind)
    return result


def _images(value, images):
    for container in value.get("spec", {}).get("template", {}).get("spec", {}).get("containers", []):
        name, _, _ = container["image"].rpartition(":")
        for image in images:
            if image["name"] == name:
                container["image"] = f"{image.get('newName', name)}:{image['newTag']}"


def build(folder):
    folder = pathlib.Path(folder)
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    unknown = set(kustomization) - _MEMBERS
    assert not unknown, f"{folder}: {unknown}"
    objects = []
    for resource in kustomization["resources"]:
        path = folder / resource
        objects += build(path) if path.is_dir() else list(yaml.safe_load_all(path.read_text()))
    for generator in kustomization.get("configMapGenerator", []):
        made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": generator["name"]},
                "data": {file: (folder / file).read_text() for file in generator["files"]}}
        at = next((i for i, old in enumerate(objects)
                   if (old["kind"], old["metadata"]["name"]) == ("ConfigMap", generator["name"])), None)
        assert (at is not None) == (generator.get("behavior") == "replace"), f"{folder}: {generator}"
        if at is None:
            objects.append(made)
        else:
            objects[at] = made
    for patch in kustomization.get("patches", []):
        for change in yaml.safe_load_all((folder / patch["path"]).read_text()):
            at = next(i for i, old in enumerate(objects) if old["kind"] == change["kind"]
                      and old["metadata"]["name"] == change["metadata"]["name"])
            objects[at] = merge(objects[at], change, change["kind"])
    objects = copy.deepcopy(objects)
    for value in objects:
        value["metadata"]["namespace"] = kustomization["namespace"]
        _images(value, kustomization.get("images", []))
    return objects
