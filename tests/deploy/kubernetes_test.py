"""The chart as Helm's own library renders it, the kustomize overlays, and what goes with them, held to Kubernetes' schemas."""
import copy
import json
import os
import pathlib
import re
import shutil
import subprocess

import helm_python
import jsonschema
import kubernetes_validate
import pytest
import yaml

import kustomize
import manifests

ROOT = manifests.ROOT
PROGRAM = os.environ["POLYAD_PROGRAM"]
VERSIONS = ("1.30", "1.33", "1.37")
CRDS = yaml.safe_load((pathlib.Path(__file__).parent / "crds.yaml").read_text())
CASES = {
    "as it is": {},
    "persistent": {"state": {"persistent": True, "storageClass": "fast"}},
    "adapters": {"adapters": {"volume": {"persistentVolumeClaim": {"claimName": "adapters", "readOnly": True}},
                              "preload": [{"name": "support", "path": "support"}, {"name": "legal", "path": "a/b"}]},
                 "config": {"memory_mib": 4096}, "model": {"path": "/var/lib/polyad/model/x.gguf", "name": "base"}},
    "declared adapters": {"adapters": {"volume": {"persistentVolumeClaim": {"claimName": "adapters", "readOnly": True}},
                                       "watch": {"enabled": True, "absent": ["trial"], "adapters": [
                                           {"name": "support", "uri": "acme/support", "aliases": ["help"], "allowed_tenants": ["acme"]}]}}},
    "keda": {"autoscaling": {"enabled": True}, "state": {"persistent": True}},
    "hpa": {"autoscaling": {"enabled": True, "kind": "hpa"}},
    "monitored": {"serviceMonitor": {"enabled": True, "labels": {"release": "kube-prometheus-stack"}}},
    "clients' certificates": {"tls": {"clientCa": True, "requireClientCert": True}},
    "without TLS": {"tls": {"existingSecret": ""}, "insecure": True, "serviceMonitor": {"enabled": True}},
    "gpu": {"gpus": 2, "image": {"repository": "registry.example/polyad", "digest": "sha256:" + 64 * "0"},
            "nodeSelector": {"gpu": "h100"}, "tolerations": [{"key": "gpu", "operator": "Exists"}],
            "priorityClassName": "serving", "imagePullSecrets": [{"name": "registry"}], "podLabels": {"team": "a"},
            "podAnnotations": {"a": "b"}, "service": {"type": "LoadBalancer", "annotations": {"c": "d"}}},
    "network policy": {"networkPolicy": {"enabled": True, "egress": [{"to": [{"podSelector": {"matchLabels": {"app": "otel"}}}]}]}},
    "no budget, no spread": {"podDisruptionBudget": {"enabled": False}, "topologySpread": {"enabled": False}},
    **manifests.overlays(),
}


def check_schema(value):
    """Kubernetes' own objects by its schemas of three versions, strictly; others by crds.yaml."""
    name = f"{value['apiVersion']}/{value['kind']}"
    if name not in CRDS:
        for version in VERSIONS:
            kubernetes_validate.validate(value, version, strict=True)
        return
    schema = {"type": "object", "required": ["apiVersion", "kind", "metadata", "spec"], "additionalProperties": False,
              "definitions": CRDS["definitions"],
              "properties": {"apiVersion": {}, "kind": {}, "metadata": {"$ref": "#/definitions/metadata"},
                             "spec": {"type": "object", **CRDS[name]}}}
    jsonschema.validate(value, schema, cls=jsonschema.Draft7Validator)


def of_kind(objects, *kinds):
    return [value for value in objects if value["kind"] in kinds]


def workload_of(objects):
    return of_kind(objects, "Deployment", "StatefulSet")[0]


@pytest.fixture(scope="module", params=CASES)
def objects(request):
    return manifests.render(CASES[request.param])


def test_schemas(objects):
    for value in objects:
        check_schema(value)
    for scaled in of_kind(objects, "ScaledObject"):  # its behaviour is an autoscaler's
        autoscaler = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"},
                      "spec": {"scaleTargetRef": scaled["spec"]["scaleTargetRef"], "maxReplicas": 2,
                               "behavior": scaled["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]}}
        check_schema(autoscaler)


def test_drain_comes_before_the_end(objects):
    pod = workload_of(objects)["spec"]["template"]["spec"]
    pause = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = json.loads(manifests.config_of(objects))["drain_ms"] / 1000
    assert pause > 0 and drain > 0
    assert pod["terminationGracePeriodSeconds"] > pause + drain


def test_sealed(objects):
    """Pod Security's `restricted`, and what it does not ask for."""
    pod = workload_of(objects)["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 65532
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    (container,) = pod["containers"]
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"]["limits"]["memory"] and container["resources"]["requests"]["cpu"]
    writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"/var/lib/polyad/state", "/tmp"}
    for volume in pod["volumes"]:
        assert "hostPath" not in volume
        if "secret" in volume:
            assert volume["secret"]["defaultMode"] == 0o440  # a key that others may read is refused
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    claimed = {claim["metadata"]["name"] for claim in workload_of(objects)["spec"].get("volumeClaimTemplates", [])}
    assert mounted == {volume["name"] for volume in pod["volumes"]} | claimed


def test_names_meet(objects):
    """Selectors select the pods, ports are the container's, references lead somewhere."""
    workload = workload_of(objects)
    template = workload["spec"]["template"]
    labels, pod = template["metadata"]["labels"], template["spec"]
    ports = {port["name"]: port["containerPort"] for port in pod["containers"][0]["ports"]}
    selectors = [workload["spec"]["selector"]["matchLabels"]]
    selectors += [value["spec"]["selector"] for value in of_kind(objects, "Service")]
    selectors += [value["spec"]["selector"]["matchLabels"] for value in of_kind(objects, "PodDisruptionBudget", "InferencePool")]
    selectors += [value["spec"]["podSelector"]["matchLabels"] for value in of_kind(objects, "NetworkPolicy")]
    selectors += [rule["labelSelector"]["matchLabels"] for rule in pod.get("topologySpreadConstraints", [])]
    for selector in selectors:
        assert selector and selector.items() <= labels.items()
    for service in of_kind(objects, "Service"):
        for port in service["spec"]["ports"]:
            assert ports[port["targetPort"]] == port["port"]
    for policy in of_kind(objects, "NetworkPolicy"):
        assert {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]} <= set(ports)
    for pool in of_kind(objects, "InferencePool"):
        assert pool["spec"]["targetPorts"] == [{"number": ports["http"]}]
    for scaler in of_kind(objects, "ScaledObject", "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        assert (target["kind"], target["name"]) == manifests.key_of(workload)
        assert "replicas" not in workload["spec"]
    for monitor in of_kind(objects, "ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        (chosen,) = [value for value in of_kind(objects, "Service") if wanted <= value["metadata"]["labels"].items()]
        assert chosen["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "polyad"  # deploy/prometheus: job="polyad"
        assert monitor["spec"]["endpoints"][0]["port"] in {port["name"] for port in chosen["spec"]["ports"]}
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = pod["containers"][0][name]
        if "exec" in probe:
            assert probe["exec"]["command"] == ["/usr/bin/polyad", "probe", "--config", "/etc/polyad/polyad.json"]
        else:
            assert probe["httpGet"]["port"] in ports


def test_everything_is_in_the_releases_namespace(objects):
    assert {value["metadata"]["namespace"] for value in objects} == {manifests.NAMESPACE}


def test_a_digest_beats_a_tag():
    image = {"repository": "registry.example/polyad", "tag": "x", "digest": "sha256:" + 64 * "0"}
    (container,) = workload_of(manifests.render({"image": image}))["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"registry.example/polyad@{image['digest']}"


def test_only_operators_reach_the_admin_port():
    (policy,) = of_kind(manifests.render(CASES["network policy"]), "NetworkPolicy")
    (rule,) = [rule for rule in policy["spec"]["ingress"] if {"port": "admin"} in rule["ports"]]
    assert rule["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "polyad-admin"}}}]
    for value in of_kind(manifests.render({}), "Service"):
        names = {port["name"] for port in value["spec"]["ports"]}
        assert ("admin" in names) == (value["metadata"]["name"] == "polyad-replicas")
    (route,) = of_kind(manifests.render(CASES["gateway"]), "HTTPRoute")
    paths = {match["path"]["value"] for rule in route["spec"]["rules"] for match in rule["matches"]}
    assert paths == {"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/models"}


@pytest.fixture(scope="module")
def mounted(tmp_path_factory):
    """What the secrets hold, in a folder that stands for /etc/polyad."""
    folder = tmp_path_factory.mktemp("mounted")
    subprocess.run([ROOT / "deploy/compose/make_secrets", folder / "made"], check=True, stdout=subprocess.DEVNULL)
    for target, source in (("tenants/tenants.json", "polyad/tenants.json"), ("tokens/admin.token", "polyad/admin.token"),
                           ("tokens/metrics.token", "polyad/metrics.token"), ("tls/tls.crt", "proxy/cert.pem"),
                           ("tls/tls.key", "proxy/key.pem"), ("tls/ca.crt", "proxy/cert.pem")):
        (folder / target).parent.mkdir(exist_ok=True)
        shutil.copy(folder / "made" / source, folder / target)
    return folder


def declared_of(objects):
    """-> what the ConfigMap of adapters holds, or none"""
    texts = [value["data"]["adapters.json"] for value in of_kind(objects, "ConfigMap") if "adapters.json" in value["data"]]
    return texts[0] if texts else None


def check_config(text, folder):
    (folder / "polyad.json").write_text(text.replace("/etc/polyad", str(folder)))
    return subprocess.run([PROGRAM, "check-config", "--config", folder / "polyad.json"], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False)


def test_the_server_takes_the_configuration(objects, mounted):
    (mounted / "adapters").mkdir(exist_ok=True)
    (mounted / "adapters/adapters.json").write_text(declared_of(objects) or "nothing")
    done = check_config(manifests.config_of(objects), mounted)
    assert done.returncode == 0, done.stdout


def test_declared_adapters_roll_no_pod(mounted):
    """Another set of them is another ConfigMap under the pods that are there, mounted where it can change."""
    values = CASES["declared adapters"]
    objects = manifests.render(values)
    (entry,) = values["adapters"]["watch"]["adapters"]
    assert json.loads(declared_of(objects)) == {"adapters": [entry], "absent": ["trial"]}
    watch = {"watch": {"enabled": True, "adapters": [entry, {"name": "more", "uri": "m"}]}}
    other = manifests.render({"adapters": values["adapters"] | watch})
    assert declared_of(other) != declared_of(objects)
    assert workload_of(other) == workload_of(objects)
    pod = workload_of(objects)["spec"]["template"]["spec"]
    (mount,) = [mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "declared"]
    assert mount == {"name": "declared", "mountPath": "/etc/polyad/adapters", "readOnly": True}
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "declared"]
    assert volume["configMap"]["name"] in {value["metadata"]["name"] for value in of_kind(objects, "ConfigMap")}
    own = manifests.render({"adapters": values["adapters"] | {"watch": {"enabled": True, "existingConfigMap": "mine"}}})
    assert declared_of(own) is None
    (volume,) = [volume for volume in workload_of(own)["spec"]["template"]["spec"]["volumes"] if volume["name"] == "declared"]
    assert volume["configMap"] == {"name": "mine"}
    (mounted / "adapters/adapters.json").write_text(declared_of(objects).replace("uri", "urk"))
    assert check_config(manifests.config_of(objects), mounted).returncode == 2


def test_the_server_refuses_it_without_credentials(mounted):
    """Why `insecure` has to be said: check-config is no formality."""
    objects = manifests.render({"tls": {"existingSecret": ""}})
    assert check_config(manifests.config_of(objects), mounted).returncode == 2
    objects = manifests.render({"config": {"no_such_key": 1}})
    assert check_config(manifests.config_of(objects), mounted).returncode == 2


def test_values_are_checked():
    for values in ({"replica": 3}, {"tls": {"secret": "x"}}, {"autoscaling": {"kind": "vpa"}}, {"drainSeconds": 601},
                   {"adapters": {"preload": [{"name": "a,b", "path": "x"}]}}, {"adapters": {"preload": [{"name": "a", "path": "/x"}]}},
                   {"adapters": {"watch": {"enabled": True}}}, {"adapters": {"watch": {"adapters": [{"name": "a"}]}}},
                   {"gateway": {"enabled": True}}):
        with pytest.raises(helm_python.HelmError):
            manifests.render(values)
    with helm_python.Chart.load(manifests.CHART) as chart:
        assert set(chart.values) == set(json.loads((manifests.CHART / "values.schema.json").read_text())["properties"]) - {"global"}


def test_spoiled_objects_are_noticed():
    workload = workload_of(manifests.render({}))
    container = workload["spec"]["template"]["spec"]["containers"][0]
    container["readinessProb"] = container.pop("readinessProbe")
    with pytest.raises(kubernetes_validate.ValidationError):
        check_schema(workload)
    for kind, member in (("InferencePool", "extensionRef"), ("HTTPRoute", "rule")):
        (value,) = of_kind(manifests.render(CASES["gateway"]), kind)
        value["spec"][member] = {}
        with pytest.raises(jsonschema.ValidationError):
            check_schema(value)


def normal(objects):
    """Objects in one order, config maps without the hash that kustomize adds to their names."""
    text = re.sub(r'"polyad-[0-9a-z]{10}"', '"polyad"', json.dumps(objects, sort_keys=True))
    result = sorted(json.loads(text), key=lambda value: (value["kind"], value["metadata"]["name"]))
    for value in result:
        value["metadata"]["namespace"] = manifests.NAMESPACE
        if value["kind"] == "ConfigMap":
            value["metadata"].pop("labels", None)
            value["data"] = {"polyad.json": json.loads(value["data"]["polyad.json"])}
    return result


def test_kustomize_files_are_the_charts():
    for path, text in manifests.made_files().items():
        assert path.read_text() == text, f"{path}: run tests/deploy/manifests.py --write"


@pytest.mark.parametrize("name", ["base", *(f"overlays/{name}" for name in manifests.overlays())])
def test_overlay_is_the_chart_with_its_values(name):
    values = {} if name == "base" else manifests.overlays()[name.split("/")[1]]
    built = kustomize.build(manifests.KUSTOMIZE / name)
    for value in built:
        check_schema(value)
    assert normal(built) == normal(manifests.as_kustomize_has_it(manifests.render(values)))
    if shutil.which("kubectl"):
        text = subprocess.run(["kubectl", "kustomize", manifests.KUSTOMIZE / name], check=True, stdout=subprocess.PIPE).stdout
        assert normal(list(yaml.safe_load_all(text))) == normal(built)


def test_kserve(tmp_path):
    objects = list(yaml.safe_load_all((ROOT / "deploy/kserve/serving_runtime.yaml").read_text()))
    for value in objects:
        check_schema(value)
    (runtime,) = of_kind(objects, "ServingRuntime")
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"},
           "spec": {key: copy.deepcopy(runtime["spec"][key]) for key in ("containers", "volumes")}}
    check_schema(pod)
    (service,) = of_kind(objects, "InferenceService")
    assert service["spec"]["predictor"]["model"]["runtime"] == runtime["metadata"]["name"]
    formats = {entry["name"] for entry in runtime["spec"]["supportedModelFormats"]}
    assert service["spec"]["predictor"]["model"]["modelFormat"]["name"] in formats
    assert service["spec"]["predictor"]["terminationGracePeriodSeconds"] > 45
    (tmp_path / "tenants.json").write_text('{"tenants": {"a": {"keys": ["%s"]}}}' % ("0" * 64))
    config = manifests.config_of(objects).replace("/etc/polyad-tenants", str(tmp_path))
    done = check_config(config, tmp_path)
    assert done.returncode == 0, done.stdout


def test_endpoint_picker():
    values = yaml.safe_load((ROOT / "deploy/gateway/endpoint_picker_values.yaml").read_text())
    extension = values["inferenceExtension"]
    config = yaml.safe_load(extension["pluginsCustomConfig"][extension["pluginsConfigFile"]])
    assert config["kind"] == "EndpointPickerConfig"
    known = {plugin["type"] for plugin in config["plugins"]}
    (profile,) = config["schedulingProfiles"]
    used = {plugin["pluginRef"]: plugin.get("weight") for plugin in profile["plugins"]}
    assert set(used) == known and "lora-affinity-scorer" in known
    labels = workload_of(manifests.render(CASES["gateway"]))["spec"]["template"]["metadata"]["labels"]
    assert values["inferencePool"]["modelServers"]["matchLabels"].items() <= labels.items()
