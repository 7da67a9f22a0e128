#!/usr/bin/env python3
"""The chart as Helm renders it, and the kustomize tree, whose objects are made from the chart.

  manifests.py --write       writes deploy/kustomize/**/objects.yaml and polyad.json anew
"""
import copy
import json
import pathlib
import sys

import helm_python
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy/helm/polyad"
KUSTOMIZE = ROOT / "deploy/kustomize"
NAME = NAMESPACE = "polyad"
_HEADER = "# Made from deploy/helm/polyad by tests/deploy/manifests.py --write.\n"
# What Helm and kustomize each do in their own way.
_HELM_LABELS = ("helm.sh/chart", "app.kubernetes.io/managed-by")
_CHECKSUM = "checksum/config"


class _Dumper(yaml.SafeDumper):
    def increase_indent(self, flow=False, indentless=False):
        return super().increase_indent(flow, False)


def dump(objects):
    return _HEADER + "---\n".join(
        yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=130) for value in objects)


def render(values):
    """-> every object of the chart."""
    with helm_python.Chart.load(CHART) as chart:
        files = chart.render(values, name=NAME, namespace=NAMESPACE)
    return [value for name, text in sorted(files.items()) if name.endswith(".yaml")
            for value in yaml.safe_load_all(text) if value]


def key_of(value):
    return value["kind"], value["metadata"]["name"]


def as_kustomize_has_it(objects):
    """The same without what is Helm's own."""
    objects = copy.deepcopy(objects)
    for value in objects:
        del value["metadata"]["namespace"]  # kustomization.yaml has it, and patches name objects without
        for label in _HELM_LABELS:
            value["metadata"]["labels"].pop(label)
        template = value.get("spec", {}).get("template", {}).get("metadata", {})
        template.get("annotations", {}).pop(_CHECKSUM, None)
        if not template.get("annotations", True):
            del template["annotations"]
    return objects


def config_of(objects):
    return next(value for value in objects if value["kind"] == "ConfigMap")["data"]["polyad.json"]


def overlays():
    """-> {name: values of the chart}"""
    return {path.parent.name: yaml.safe_load(path.read_text()) for path in sorted(KUSTOMIZE.glob("overlays/*/values.yaml"))}


def made_files():
    """-> {path: what it should hold}"""
    base = as_kustomize_has_it(render({}))
    files = {KUSTOMIZE / "base/objects.yaml": dump(value for value in base if value["kind"] != "ConfigMap"),
             KUSTOMIZE / "base/polyad.json": config_of(base).rstrip("\n") + "\n"}
    known = {key_of(value) for value in base}
    for name, values in overlays().items():
        folder, objects = KUSTOMIZE / "overlays" / name, as_kustomize_has_it(render(values))
        added = [value for value in objects if key_of(value) not in known]
        if added:
            files[folder / "objects.yaml"] = dump(added)
        if json.loads(config_of(objects)) != json.loads(config_of(base)):
            files[folder / "polyad.json"] = config_of(objects).rstrip("\n") + "\n"
    return files


def main():
    if sys.argv[1:] != ["--write"]:
        sys.exit(__doc__)
    for path, text in made_files().items():
        path.write_text(text)


if __name__ == "__main__":
    main()
