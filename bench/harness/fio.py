"""Runs fio and reads its JSON."""

import json
import shutil
import subprocess

from .errors import Failure

PATIENCE = 60  # seconds beyond the run time that a run of fio may take


def command(path, operation, *, size, offset=0, block=4096, depth=16, seconds=None, ios=None, repeat=False):
    """The command line for one job with O_DIRECT. Random operations take each block once, until all are
    done or `seconds` are over; with `repeat`, they go on for all of the time."""
    argv = ["fio", "--name=job", f"--filename={path}", f"--rw={operation}", f"--bs={block}",
            f"--offset={offset}", f"--size={size}", f"--iodepth={depth}", "--ioengine=libaio", "--direct=1",
            "--thread", "--randrepeat=0", "--allow_file_create=0", "--fallocate=none",
            # overlayfs would drop the lower file's cached pages, which others read after it.
            "--invalidate=0", "--output-format=json"]
    if seconds:
        argv.append(f"--runtime={seconds}")
    if ios:
        argv.append(f"--number_ios={ios}")
    if repeat:
        argv.append("--time_based")
    return argv


def run(path, operation, **options):
    """Returns (IOPS, bytes a second)."""
    argv = command(path, operation, **options)
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False,
                              timeout=(options.get("seconds") or 0) + PATIENCE)
    except subprocess.TimeoutExpired as error:
        raise Failure(f"fio did not end: {' '.join(argv)}") from error
    return parse(done.returncode, done.stdout, done.stderr, argv)


def parse(code, said, errors, argv):
    # Notes may stand before the JSON.
    try:
        job = json.loads(said[said.index("{"):])["jobs"][0]
    except (ValueError, KeyError, IndexError):
        job = None
    if code != 0 or job is None or job["error"] != 0:
        raise Failure(f"fio has failed (code {code}): {(errors or said).strip()[-400:]}\n  command: {' '.join(argv)}")
    side = job["read"] if job["read"]["total_ios"] else job["write"]
    return side["iops"], side["bw_bytes"]


def installed():
    return shutil.which("fio") is not None
