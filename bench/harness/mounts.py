"""Mounts below a folder of ours: waiting for them, and taking them away."""

import ctypes
import os
import re
import subprocess

MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


def below(folder):
    """The mount points in a folder, the latest first."""
    inside = os.path.join(os.path.realpath(folder), "")
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        points = [_unescape(line.split()[4]) for line in file]
    return [point for point in reversed(points) if point.startswith(inside)]


def is_mounted(path):
    return os.path.realpath(path) in below(os.path.dirname(os.path.realpath(path)))


def detach_all(folder):
    """Unmounts what is mounted in a folder, even if it is in use or its server is dead. Returns what
    it could not unmount."""
    for point in below(folder):
        if _libc.umount2(os.fsencode(point), MNT_DETACH) != 0:
            # Not root: who has made a FUSE mount may also take it away.
            try:
                subprocess.run(["fusermount3", "-uz", point], capture_output=True, timeout=30, check=False)
            except (OSError, subprocess.TimeoutExpired):
                pass
    return below(folder)


def _unescape(text):
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
