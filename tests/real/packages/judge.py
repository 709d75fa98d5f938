"""Looks into what kustomize built; run by the suite `manifests` with a Python that has PyYAML. Prints its checks.

    judge.py DIRECTORY
"""

import json
import pathlib
import sys

import yaml

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from support import ROOT, check

WITH_SIDECAR = {"app": ["app"], "job": ["report"], "replicas": ["app"], "yours": ["shop", "bare"]}
HEALTH, MODE = 7602, 0o440
# Of a pod that had one already.
GROUPS = {"yours/shop": 1234}
NUMBER = next(line.split('"')[1] for line in (ROOT / "Cargo.toml").read_text().splitlines() if line.startswith("version"))


def main(directory):
    for file in sorted(pathlib.Path(directory).glob("*.yaml")):
        documents = list(yaml.safe_load_all(file.read_text()))
        pods = {document["metadata"]["name"]: document["spec"]["template"]["spec"]
                for document in documents if "template" in document.get("spec", {})}
        configurations = [document["metadata"]["name"] for document in documents if document["kind"] == "ConfigMap"]
        for name in WITH_SIDECAR.get(file.stem, []):
            beside(f"{file.stem}/{name}", pods[name], configurations)
        if file.stem == "service":
            alone(pods, documents, configurations)
        if file.stem != "yours":
            for name, pod in pods.items():
                confined(f"{file.stem}/{name}", pod)
        else:
            untouched(pods, file.with_name("yours") / "workloads.yaml")


def beside(label, pod, configurations):
    """The native sidecar."""
    first = pod["initContainers"][0]
    check(f"{label}, sidekey is the first of the init containers, and runs on",
          (first["name"], first.get("restartPolicy")) == ("sidekey", "Always"), first)
    serves(label, pod, first, configurations)
    others = [*pod["initContainers"][1:], *pod["containers"]]
    mounts = [mount["name"] for container in others for mount in container.get("volumeMounts", [])]
    check(f"{label}, no other container has the secrets", "sidekey-secrets" not in mounts, mounts)
    check(f"{label}, sidekey may drain", pod["terminationGracePeriodSeconds"] > 25, pod)


def serves(label, pod, sidekey, configurations):
    image = sidekey["image"].rsplit("/", 1)[-1]
    check(f"{label}, the image is this version's", image == f"sidekey:{NUMBER}", image)
    probes = {probe: sidekey[probe]["httpGet"] for probe in ["startupProbe", "readinessProbe"]}
    wanted = {"startupProbe": {"path": "/livez", "port": HEALTH}, "readinessProbe": {"path": "/readyz", "port": HEALTH}}
    check(f"{label}, it is asked whether it is live, and then whether it is ready", probes == wanted, probes)
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: (volumes[mount["name"]], mount.get("readOnly")) for mount in sidekey["volumeMounts"]}
    check(f"{label}, every mount is read-only", all(only for _, only in mounts.values()), mounts)
    found = mounts["/etc/sidekey"][0]["configMap"]["name"]
    check(f"{label}, the configuration is the one that is built, by its hash",
          found in configurations and found != "sidekey", f"{found} {configurations}")
    secrets = [volume["secret"] for volume, _ in mounts.values() if "secret" in volume]
    check(f"{label}, the secret files are for one group", secrets and all(s["defaultMode"] == MODE for s in secrets),
          secrets)
    context = {**pod.get("securityContext", {}), **sidekey["securityContext"]}
    group = GROUPS.get(label, 65532)
    check(f"{label}, which is sidekey's", context["fsGroup"] == group == context["runAsGroup"], context)
    hardened(f"{label}, sidekey", pod, sidekey)


def alone(pods, documents, configurations):
    """The Service."""
    pod = pods["sidekey"]
    serves("service/sidekey", pod, pod["containers"][0], configurations)
    service = next(document for document in documents if document["kind"] == "Service")
    policy = next(document for document in documents if document["kind"] == "NetworkPolicy")
    ports = {port["name"]: port["containerPort"] for port in pod["containers"][0]["ports"]}
    check("service, Service, pod and policy have one port",
          [service["spec"]["ports"][0]["targetPort"], policy["spec"]["ingress"][0]["ports"][0]["port"]]
          == [ports["https"]] * 2, ports)
    labels = {document["metadata"]["name"]: document["spec"]["template"]["metadata"]["labels"]
              for document in documents if document["kind"] == "Deployment"}
    check("service, what the Service and the policy select is sidekey",
          service["spec"]["selector"].items() <= labels["sidekey"].items()
          and policy["spec"]["podSelector"]["matchLabels"].items() <= labels["sidekey"].items(), labels)
    who = policy["spec"]["ingress"][0]["from"][0]["podSelector"]["matchLabels"]
    check("service, the policy lets the caller in", who.items() <= labels["report"].items(), labels)
    drain = pod["terminationGracePeriodSeconds"]
    check("service, sidekey may delay and drain", drain > 5 + 25, drain)


def confined(label, pod):
    check(f"{label}, no token of the Kubernetes API", pod["automountServiceAccountToken"] is False, pod)
    for container in pod["containers"]:
        hardened(f"{label}, {container['name']}", pod, container)
        check(f"{label}, {container['name']}, an image of a version",
              ":" in container["image"] and not container["image"].endswith(":latest"), container["image"])


def hardened(label, pod, container):
    """What Kubernetes' restricted Pod Security Standard asks for, and a read-only root."""
    context = {**pod.get("securityContext", {}), **container["securityContext"]}
    wanted = {"runAsNonRoot": True, "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
              "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}}
    check(f"{label} may do nothing special", all(context.get(key) == value for key, value in wanted.items()),
          json.dumps(context))


def untouched(pods, source):
    """What stood in the pods before stands there still, and a pod without the label is as it was."""
    before = {document["metadata"]["name"]: document["spec"]["template"]["spec"]
              for document in yaml.safe_load_all(source.read_text())}
    check("yours, nothing is added without the label", pods["stranger"] == before["stranger"], pods["stranger"])
    for name in ["shop", "bare"]:
        now, was = pods[name], before[name]
        check(f"yours/{name}, its containers are as they were", now["containers"] == was["containers"], now)
        for key in ["initContainers", "volumes"]:
            kept = [item for item in now[key] if not item["name"].startswith("sidekey")]
            check(f"yours/{name}, its {key} are as they were", kept == was.get(key, []), now[key])
        kept = now["securityContext"].get("runAsUser") == was.get("securityContext", {}).get("runAsUser")
        check(f"yours/{name}, it runs as the user that it ran as", kept, now["securityContext"])


if __name__ == "__main__":
    main(*sys.argv[1:])
