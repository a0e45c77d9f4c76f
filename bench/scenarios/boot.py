"""The lean Linux guest, from nothing to its shell."""

import os
import subprocess

from harness.errors import Failure
from harness.figures import Figure
from harness.runner import Cell
from harness.targets import Guest, Qemu

NAME = "boot"
SUMMARY = "the lean Linux guest to its shell and to its services (with --peer in QEMU, too)"
REPEAT = 3
PEER = False  # on a host that emulates guest kernels, each run of it takes most of a minute
GUESTS = True

TIMEOUT = 180
BUILD_TIMEOUT = 1800
PROMPT = ":~# "
READY = "ivmm-guest: ready"
OPTIONS = "root=/dev/vda rw quiet"

FIGURES = [
    Figure("shell", "start to the shell's prompt", "s", "lower"),
    Figure("ready", "start to all services listening", "s", "lower"),
]


def targets(context):
    qemu = context.qemu
    return [context.ivmm] + ([Qemu(qemu.path, "threads")] if qemu else [])


def plan(context, _):
    kernel, rootfs = images(context, NAME)
    kernel = os.path.join(kernel, "vmlinux")
    image = os.path.join(rootfs, "rootfs.ext4")
    disk = context.file("rootfs.ext4")
    settings = context.settings
    settings.update({"kernel": kernel, "rootfs": image, "cpus": 1, "memory_mib": 128})

    def measure(target):
        # Each run has a fresh copy: none finds what another has written.
        copied = subprocess.run(["cp", "--sparse=always", image, disk], capture_output=True, text=True,
                                timeout=60, check=False)
        if copied.returncode != 0:
            raise Failure(f"cannot copy the root file system: {copied.stderr.strip()}")
        # The peer's guest gets the words that ivmm adds on this kind of host: it needs them as much.
        cmdline = OPTIONS if target is context.ivmm else settings["kernel_command_line"]
        guest = Guest(kernel, cmdline, disk=disk, acpi=True)
        with context.start(target, guest) as running:
            shell = running.wait_for(PROMPT, TIMEOUT)
            ready = running.wait_for(READY, TIMEOUT)
            if target is context.ivmm:
                words = context.ivmm_status(running)["kernel_command_line"].split()
                settings["kernel_command_line"] = " ".join(
                    word for word in words if not word.startswith("virtio_mmio.device="))
            return {"shell": shell / 1e9, "ready": ready / 1e9}

    return [Cell("Linux", FIGURES, measure)]


def images(context, name):
    """The folders with the guest's kernel and with its root file system."""
    source = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
    builder = os.path.join(source, "guest-images", "build")
    context.progress(f"{name}: the guest's kernel and root file system (some minutes when they must be built)")
    return _built(builder, "kernel"), _built(builder, "rootfs")


def _built(builder, what):
    try:
        done = subprocess.run([builder, what], stdout=subprocess.PIPE, text=True, timeout=BUILD_TIMEOUT,
                              check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failure(f"{builder} {what}: {error}") from error
    if done.returncode != 0:
        raise Failure(f"{builder} {what} has failed (code {done.returncode}); it says why above")
    return done.stdout.strip().splitlines()[-1]
