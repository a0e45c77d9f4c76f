"""What is to be known about the machine when its numbers are read."""

import os
import platform
import subprocess

from .errors import Unusable

KINDS = ("kvm_pvm", "kvm_intel", "kvm_amd")  # a module of the name is loaded


def require_kvm():
    if not os.path.exists("/dev/kvm"):
        raise Unusable("no /dev/kvm: this host has no KVM; run on one that has")
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        raise Unusable("no permission for /dev/kvm: join the group kvm, or run as root")


def kind():
    return next((k for k in KINDS if os.path.isdir(f"/sys/module/{k}")), "unknown")


def _field(path, name):
    with open(path, encoding="utf-8") as file:
        for line in file:
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    return ""


def filesystem_of(path):
    """The type of the file system that a folder is on."""
    path = os.path.realpath(path)
    best, found = "", "unknown"
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            mount = before.split()[4]
            inside = path == mount or path.startswith(mount.rstrip("/") + "/")
            if inside and len(mount) >= len(best):
                best, found = mount, after.split()[0]
    return found


def facts(scratch, qemu_version):
    return {
        "kind": kind(),
        "cpus": len(os.sched_getaffinity(0)),
        "cpu_model": _field("/proc/cpuinfo", "model name"),
        "memory_mib": int(_field("/proc/meminfo", "MemTotal").split()[0]) // 1024,
        "kernel": platform.release(),
        "qemu": qemu_version,
        "filesystem": filesystem_of(scratch),
        "load_average": os.getloadavg()[0],
    }


def facts_of_ivmm(path):
    """Its version, and from the build folder it lies in how it was built."""
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False)
        version = said.stdout.partition("\n")[0] if said.returncode == 0 else "?"
    except (OSError, subprocess.TimeoutExpired):
        version = "?"
    facts_ = {"path": path, "version": version, "build_type": "?", "sanitizers": ""}
    cache = os.path.join(os.path.dirname(path), "CMakeCache.txt")
    if os.path.exists(cache):
        with open(cache, encoding="utf-8") as file:
            for line in file:
                name, _, value = line.strip().partition("=")
                if name.startswith("CMAKE_BUILD_TYPE:"):
                    facts_["build_type"] = value
                elif name.startswith("IVMM_SANITIZE:"):
                    facts_["sanitizers"] = value
    return facts_
