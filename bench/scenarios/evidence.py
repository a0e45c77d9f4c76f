"""The evidence of a clone that runs: how long collecting it takes, and how long the clone stands still."""

import json
import os
import shutil
import subprocess
import time

from harness import dirty, mounts
from harness.errors import Failure
from harness.figures import Figure
from harness.runner import Cell

NAME = "evidence"
SUMMARY = "`ivmm evidence` of a 1 GiB clone with a disk of 1 GiB, after 100 MiB of changes in each"
REPEAT = 3
PEER = False
GUESTS = True

REGION_MIB = 512     # of memory that the guest fills
FILES_MIB = 400      # on its disk at the fork
CHANGED_MIB = 100    # of each, since then
TIMEOUT = 120
MIB = 1 << 20

FIGURES = [
    Figure("collect", "start of the command to its end", "s", "lower"),
    Figure("clone_pause", "the clone stood still for it", "µs", "lower"),
    Figure("fork_pause", "the primary stood still for the fork", "µs", "lower"),
    Figure("changed", "memory that had changed", "MiB", "higher"),
    Figure("folder", "size of the folder", "MiB", "lower"),
]


def targets(context):
    return [context.ivmm]


def plan(context, _):
    if os.geteuid() != 0:
        raise Failure("it needs root: it mounts an overlay")
    context.settings.update({"memory_mib": dirty.MEMORY_MIB, "region_mib": REGION_MIB, "files_mib": FILES_MIB,
                             "changed_mib": CHANGED_MIB})
    _make_disk(context)
    return [Cell("evidence", FIGURES, lambda _: _measure(context))]


def _make_disk(context):
    """An ext4 file system whose files cannot be packed."""
    lower, files = context.file("lower"), context.file("files")
    os.makedirs(lower)
    os.makedirs(files)
    for i in range(FILES_MIB // 4):
        with open(os.path.join(files, str(i)), "wb") as file:
            file.write(os.urandom(4 * MIB))
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", files, os.path.join(lower, "disk.ext4"), "1G"], check=True,
                   env=dict(os.environ, PATH=os.environ["PATH"] + ":/usr/sbin:/sbin"), capture_output=True)
    shutil.rmtree(files)


def _measure(context):
    folder = context.file("site")
    point, upper = os.path.join(folder, "mnt"), os.path.join(folder, "upper")
    os.makedirs(point)
    context.ivmm_call("overlay", "mount", "-o", f"lower={context.file('lower')},upper={upper}", point)
    try:
        return _fork_and_collect(context, os.path.join(point, "disk.ext4"))
    finally:
        mounts.detach_all(folder)  # its server has ended with the guest, as all that was started
        shutil.rmtree(folder)


def _fork_and_collect(context, disk):
    # 25 MB a second, for as long as it takes to write what is to be changed.
    guest = dirty.guest(context, rate=CHANGED_MIB // 4, region_mib=REGION_MIB, interval_ms=1000)
    guest = type(guest)(**{**guest.__dict__, "disk": disk})
    with context.start(context.ivmm, guest) as running:
        running.wait_for("generation=", dirty.START_TIMEOUT)
        with context.control(context.ivmm_name(running)) as control:
            control.call("standby", TIMEOUT)
            report = control.call("fork", TIMEOUT)
        clone = report["clone"]
        context.ivmm_call("pause", context.ivmm_name(running))  # only the clone is in the way
        try:
            _write(report["disks"][0]["path"])
            time.sleep(4)
            samples = _collect(context, clone)
        finally:
            with context.control(clone) as control:
                control.stop_guest()
            context.ivmm_call("rm", clone)
        with context.control(context.ivmm_name(running)) as control:
            control.stop_guest()
    return {**samples, "fork_pause": report["pause_us"]}


def _write(disk):
    """As the clone would: into what its file system has free, behind the files."""
    with open(disk, "r+b") as file:
        file.seek(800 * MIB)
        for _ in range(CHANGED_MIB):
            file.write(os.urandom(MIB))
        file.flush()
        os.fsync(file.fileno())


def _collect(context, clone):
    folder = context.file("evidence")
    begin = time.monotonic()
    context.ivmm_call("evidence", clone, folder, timeout=TIMEOUT)
    seconds = time.monotonic() - begin
    with open(os.path.join(folder, "manifest.json"), encoding="utf-8") as file:
        manifest = json.load(file)
    with open(os.path.join(folder, "memory.json"), encoding="utf-8") as file:
        memory = json.load(file)
    missing = [one for one in manifest["missing"] if one.startswith(("memory", "disk"))]
    if missing:
        raise Failure(f"it is not whole: {missing[0]}")
    size = sum(os.stat(os.path.join(folder, name)).st_blocks * 512 for name in os.listdir(folder))
    shutil.rmtree(folder)
    return {"collect": seconds, "clone_pause": manifest["pause_us"], "changed": memory["changed_bytes"] / MIB,
            "folder": size / MIB}
