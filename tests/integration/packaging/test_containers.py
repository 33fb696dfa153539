"""The container, and the examples that start it: quadlet, compose, Kubernetes."""

from __future__ import annotations

import configparser
import fnmatch
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from appliance.cli import command_parser
from appliance.config.reading import loads

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "packaging" / "container"
IMAGE = "localhost/appliance:latest"
QUADLET = Path("/usr/libexec/podman/quadlet")
CONTAINER_KEYS = {
    "ContainerName", "DropCapability", "Exec", "HealthCmd", "HealthInterval", "HealthRetries",
    "HealthStartPeriod", "HealthTimeout", "Image", "NoNewPrivileges", "PublishPort", "ReadOnly",
    "Tmpfs", "Volume",
}  # fmt: skip
"""Keys of [Container] in podman-systemd.unit(5), as far as they are used."""
PROGRAM = "/opt/appliance/appliance"
CONFIG = "/etc/appliance/config.toml"


def command(words: list[str]) -> str:
    """The appliance's command that ``words`` call, with a configuration that is mounted."""
    options = command_parser().parse_args(words)
    assert options.config == CONFIG
    return options.module


def quadlet(name: str) -> dict[str, dict[str, list[str]]]:
    """A unit's sections; a key may come several times."""
    sections: dict[str, dict[str, list[str]]] = {}
    section: dict[str, list[str]] = {}
    for line in (FOLDER / name).read_text().splitlines():
        if match := re.fullmatch(r"\[(\w+)\]", line):
            section = sections.setdefault(match[1], {})
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            section.setdefault(key, []).append(value)
    return sections


def test_the_container_is_not_root_and_asks_the_program_itself() -> None:
    """It runs as a user with a number, and its health check and command are ones there are."""
    text = (FOLDER / "Containerfile").read_text()
    assert re.search(r"^USER 10001:10001$", text, re.MULTILINE)
    check, run = re.findall(r"CMD (\[.*\])", text)
    program, *arguments = yaml.safe_load(check)
    assert (program, command(arguments)) == (PROGRAM, "health")
    assert program in text.partition("ENTRYPOINT")[2]
    assert command(yaml.safe_load(run)) == "run"
    archive = re.search(r"^ARG ARCHIVE=dist/(\S+)$", text, re.MULTILINE)[1]
    assert fnmatch.fnmatch("appliance-1.2.3-linux-x86_64.tar.xz", archive)
    if shutil.which("hadolint"):
        subprocess.run(["hadolint", FOLDER / "Containerfile"], check=True)


def test_the_quadlet_has_keys_there_are_and_rights_it_needs() -> None:
    """Its keys are podman's; root is read-only and has no capability; its commands exist; what a
    restart can't fix is not restarted."""
    unit = quadlet("appliance.container")
    assert set(unit) == {"Unit", "Container", "Service", "Install"}
    container = unit["Container"]
    assert set(container) <= CONTAINER_KEYS
    assert container["Image"] == [IMAGE]
    assert (container["ReadOnly"], container["NoNewPrivileges"]) == (["true"], ["true"])
    assert container["DropCapability"] == ["all"]
    volumes = dict(each.split(":", 1) for each in container["Volume"])
    assert volumes == {
        "/etc/appliance": "/etc/appliance:ro",
        "appliance.volume": "/var/lib/appliance",
    }
    assert set(quadlet("appliance.volume")) == {"Volume"}
    program, *arguments = shlex.split(container["HealthCmd"][0])
    assert (program, command(arguments)) == (PROGRAM, "health")
    _, execute, name, program, *arguments = shlex.split(unit["Service"]["ExecReload"][0])
    assert (execute, [name], program) == ("exec", container["ContainerName"], PROGRAM)
    assert command(arguments) == "reload"
    service = configparser.RawConfigParser(strict=False)
    service.optionxform = str
    service.read(ROOT / "packaging" / "linux" / "appliance.service")
    for key in ("Restart", "RestartPreventExitStatus"):
        assert unit["Service"][key] == [service["Service"][key]]


@pytest.mark.skipif(not QUADLET.exists(), reason="podman's quadlet (4.4 and newer) is not there")
def test_podman_makes_a_unit_of_the_quadlet() -> None:
    """Its own generator reads both files without a complaint."""
    done = subprocess.run(
        [QUADLET, "-dryrun"], env={**os.environ, "QUADLET_UNIT_DIRS": str(FOLDER)},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "appliance.service" in done.stdout
    assert "unsupported" not in done.stderr.lower()


def test_the_compose_file_starts_one_container_as_the_image_wants() -> None:
    """Root is read-only, without capabilities; one container has the data; commands exist."""
    found = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    assert list(found["services"]) == ["appliance"]
    service = found["services"]["appliance"]
    assert service["image"] == IMAGE
    assert service["container_name"], "a name lets no second container start"
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert command(service["command"]) == "run"
    kind, program, *arguments = service["healthcheck"]["test"]
    assert (kind, program, command(arguments)) == ("CMD", PROGRAM, "health")
    assert "data:/var/lib/appliance" in service["volumes"]


def test_a_reader_of_compose_files_accepts_it() -> None:
    """Each key and value is one of the compose specification."""
    compose_spec = pytest.importorskip("compose_spec", exc_type=ImportError)
    # That reader does not know the number of tries, which the specification has.
    text = (FOLDER / "compose.yaml").read_text().replace("on-failure:5", "on-failure")
    compose_spec.PyCompose.from_yaml(text).validate()
    with pytest.raises(ValueError, match="stop_grace"):
        compose_spec.PyCompose.from_yaml(text.replace("stop_grace_period", "stop_grace"))


def manifest() -> dict[str, dict]:
    return {
        each["kind"]: each for each in yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text())
    }


def test_the_manifest_runs_one_pod_with_one_volume_and_few_rights() -> None:
    """One replica of a StatefulSet, a volume for one pod, no account of the cluster, no root, nothing
    to write but data and /tmp. The probes ask what a restart can fix and what it can't."""
    found = manifest()
    assert set(found) == {"ConfigMap", "Service", "StatefulSet"}
    spec = found["StatefulSet"]["spec"]
    assert spec["replicas"] == 1
    (claim,) = spec["volumeClaimTemplates"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]
    pod = spec["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 10001
    (container,) = pod["containers"]
    rights = container["securityContext"]
    assert rights["allowPrivilegeEscalation"] is False
    assert rights["readOnlyRootFilesystem"] is True
    assert rights["capabilities"] == {"drop": ["ALL"]}
    assert command(container["args"]) == "run"
    assert container["livenessProbe"]["httpGet"] == {"path": "/metrics", "port": "metrics"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/healthz", "port": "metrics"}
    writable = {each["name"] for each in container["volumeMounts"] if not each.get("readOnly")}
    assert writable == {"data", "tmp"}


def test_the_manifest_s_configuration_is_valid_and_fits_the_pod(tmp_path: Path) -> None:
    """Ports, folders and files of the configuration are those of the pod."""
    found = manifest()
    config = loads(found["ConfigMap"]["data"]["config.toml"], file=CONFIG)
    (container,) = found["StatefulSet"]["spec"]["template"]["spec"]["containers"]
    mounts = {each["mountPath"] for each in container["volumeMounts"]}
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    assert config.metrics.bind == f"0.0.0.0:{ports['metrics']}"
    assert [each.bind for each in config.listener] == [f"0.0.0.0:{ports['mqtts']}"]
    if os.name == "posix":
        assert config.service.data_dir in mounts
        for file in (config.access.users_file, config.listener[0].tls.keyfile):
            assert str(Path(file).parent) in mounts
    (port,) = found["Service"]["spec"]["ports"]
    assert port["targetPort"] == "mqtts"
    chosen = found["StatefulSet"]["spec"]["selector"]["matchLabels"]
    assert found["Service"]["spec"]["selector"] == chosen


def test_a_reader_of_manifests_accepts_it() -> None:
    """Each key is one that Kubernetes knows (strict)."""
    validator = pytest.importorskip("kubernetes_validate", exc_type=ImportError)
    for each in manifest().values():
        validator.validate(each, validator.latest_version(), strict=True)
        with pytest.raises(validator.ValidationError):
            validator.validate(each | {"sepc": {}}, validator.latest_version(), strict=True)
