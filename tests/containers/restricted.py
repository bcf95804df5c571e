"""Kubernetes' "restricted" Pod Security Standard, which our namespace enforces, for pods of Linux.

https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

from collections.abc import Iterator

from tests.containers.files import Object, containers

VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
PROFILES = {"RuntimeDefault", "Localhost"}


def violations(pod: Object) -> Iterator[str]:
    """What the standard would refuse a pod for."""
    shared = pod.get("securityContext", {})
    yield from (name for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name))
    if "sysctls" in shared:
        yield "sysctls"
    yield from (f"volume {each['name']}" for each in pod.get("volumes", ()) if not VOLUMES & each.keys())
    for container in containers(pod):
        own = {**shared, **container.get("securityContext", {})}
        broken = {
            "privileged": own.get("privileged", False),
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation", True),
            "runAsNonRoot": not own.get("runAsNonRoot", False),
            "runAsUser": own.get("runAsUser") == 0,
            "capabilities.drop": "ALL" not in own.get("capabilities", {}).get("drop", ()),
            "capabilities.add": set(own.get("capabilities", {}).get("add", ())) - {"NET_BIND_SERVICE"},
            "seccompProfile": own.get("seccompProfile", {}).get("type") not in PROFILES,
            "procMount": own.get("procMount", "Default") != "Default",
            "hostPort": any("hostPort" in port for port in container.get("ports", ())),
        }
        yield from (f"{container['name']}: {name}" for name, is_broken in broken.items() if is_broken)
