"""What the scenario `overlay` compares: ways to have a private, writable version of a folder of files."""

import json
import os
import shutil
import subprocess
import time

from . import memory, mounts
from .errors import Failure

PATIENCE = 60  # seconds that a mount, an unmount or a fork may take
QEMU_SERVER = "qemu-storage-daemon"


class Mount:
    """A union that is mounted, with a fresh upper. `close` unmounts it and removes what was written."""

    def __init__(self, folder):
        self.folder = folder
        self.point = os.path.join(folder, "mnt")
        self._server = None
        self._log = os.path.join(folder, "log")
        os.makedirs(self.point)

    def path(self, name):
        return os.path.join(self.point, name)

    def settle(self, name):
        """Nobody else pays for what was written here."""
        fd = os.open(self.path(name), os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def server_memory(self):
        """(Rss, Pss) of the server, MiB."""
        usage = memory.of_process(self._server.pid, None)
        if usage is None:
            raise Failure(f"the server of {self.point} has ended")
        return usage[0].rss / 1024, usage[0].pss / 1024

    def close(self):
        self._unmount()
        self._end_server()
        left = mounts.detach_all(self.folder)
        if left:
            raise Failure(f"cannot unmount {left[0]}")
        shutil.rmtree(self.folder)

    def _unmount(self):
        call(["umount", self.point])

    def _serve(self, argv, point, environment=None):
        """Starts a server that stays in the foreground, and waits until it has mounted."""
        with open(self._log, "wb") as log:
            # pylint: disable=consider-using-with  # it is waited for in _end_server()
            self._server = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env=environment, start_new_session=True)
        deadline = time.monotonic() + PATIENCE
        while not mounts.is_mounted(point):
            if self._server.poll() is not None or time.monotonic() >= deadline:
                raise Failure(f"{os.path.basename(argv[0])} has not mounted {point}: {self._said()}")
            time.sleep(0.002)

    def _end_server(self):
        if self._server is None:
            return
        try:
            code = self._server.wait(PATIENCE)
        except subprocess.TimeoutExpired as error:
            raise Failure(f"the server of {self.point} is still there {PATIENCE} s after the unmount") from error
        if code != 0:
            raise Failure(f"the server of {self.point} has ended with code {code}: {self._said()}")

    def _said(self):
        with open(self._log, encoding="utf-8", errors="replace") as file:
            return file.read().strip()[-400:] or "(it said nothing)"


class Ours:
    """Wraps the harness's target for ivmm, whose label and place among the targets it keeps."""

    def __init__(self, ivmm, environment):
        self.ivmm = ivmm
        self.environment = environment

    def mount(self, folder, lower):
        return _OursMount(folder, lower, self)


class _OursMount(Mount):
    def __init__(self, folder, lower, how):
        super().__init__(folder)
        self._how = how
        upper = os.path.join(folder, "upper")
        self._serve([how.ivmm.path, "overlay", "mount", "-o", f"lower={':'.join(lower)},upper={upper}",
                     self.point, "--foreground"], self.point, how.environment)

    def fork(self, name):
        """Makes a view of this name. Returns what `ivmm overlay fork --json` says."""
        said = call([self._how.ivmm.path, "overlay", "fork", self.point, name, "--json"], self._how.environment)
        try:
            return json.loads(said)
        except ValueError as error:
            raise Failure(f"ivmm overlay fork --json said {said!r}") from error

    def _unmount(self):
        call([self._how.ivmm.path, "overlay", "umount", self.point], self._how.environment)


class Plain:
    """A file of its own in a folder: what all the others are compared with."""
    label = "plain file"

    def mount(self, folder, lower):
        return _PlainMount(folder, lower)


class _PlainMount(Mount):
    """There is nothing to mount: it is a folder of links to the lower files, which get written."""

    def __init__(self, folder, lower):
        super().__init__(folder)
        for name in os.listdir(lower[0]):
            os.link(os.path.join(lower[0], name), self.path(name))

    def _unmount(self):
        pass


class KernelOverlay:
    label = "overlayfs"

    def mount(self, folder, lower):
        return _KernelMount(folder, lower)


class _KernelMount(Mount):
    def __init__(self, folder, lower):
        super().__init__(folder)
        call(["mount", "-t", "overlay", "overlay", "-o", layers(folder, lower), self.point])


class FuseOverlay:
    label = "fuse-overlayfs"
    program = "fuse-overlayfs"

    def mount(self, folder, lower):
        return _FuseMount(folder, lower)


class _FuseMount(Mount):
    def __init__(self, folder, lower):
        super().__init__(folder)
        self._serve(["fuse-overlayfs", "-f", "-o", layers(folder, lower), self.point], self.point)


class Qcow2:
    """A qcow2 file over the raw lower one, which qemu-storage-daemon shows as a raw file through FUSE."""
    program = QEMU_SERVER

    def __init__(self, label, options, cached):
        self.label = label
        self.options = options  # of qemu-img create
        self.cached = cached    # its files go through the page cache, as those of all other servers here

    def mount(self, folder, lower):
        return _Qcow2Mount(folder, lower, self)


class _Qcow2Mount(Mount):
    """Serves one file: the mount point is that file, so only a folder of one lower file can be mounted."""

    def __init__(self, folder, lower, how):
        super().__init__(folder)
        name, = os.listdir(lower[0])
        base, delta = os.path.join(lower[0], name), os.path.join(folder, "delta.qcow2")
        call(["qemu-img", "create", "-q", "-f", "qcow2", "-o", how.options, "-b", base, "-F", "raw", delta])
        with open(self.path(name), "wb"):
            pass
        access = "aio=io_uring,cache.direct=" + ("off" if how.cached else "on")
        self._serve([QEMU_SERVER,
                     "--blockdev", f"driver=file,node-name=base-file,filename={base},read-only=on,{access}",
                     "--blockdev", "driver=raw,node-name=base,file=base-file,read-only=on",
                     "--blockdev", f"driver=file,node-name=delta-file,filename={delta},{access}",
                     "--blockdev", "driver=qcow2,node-name=delta,file=delta-file,backing=base",
                     "--export", f"type=fuse,id=export,node-name=delta,mountpoint={self.path(name)},writable=on"],
                    self.path(name))

    def _unmount(self):
        self._server.terminate()


def layers(folder, lower):
    """The mount options of both overlayfs and fuse-overlayfs, over a fresh upper."""
    for name in ("upper", "work"):
        os.mkdir(os.path.join(folder, name))
    return f"lowerdir={':'.join(lower)},upperdir={folder}/upper,workdir={folder}/work"


def call(argv, environment=None):
    try:
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failure(f"{' '.join(argv)}: {error}") from error
    if done.returncode != 0:
        raise Failure(f"{' '.join(argv)} has failed (code {done.returncode}): {(done.stderr or done.stdout).strip()[-400:]}")
    return done.stdout
