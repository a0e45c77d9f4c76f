"""The union overlay: files and directories that are written over a lower branch that stays as it is."""

import os
import random
import shutil
import stat
import statistics
import threading
import time

from harness import fio
from harness.errors import Failure
from harness.figures import Figure
from harness.runner import Cell
from harness.unions import FuseOverlay, KernelOverlay, Ours, Plain, Qcow2, QEMU_SERVER

NAME = "overlay"
SUMMARY = "the union overlay: block copy-on-write, fork, 100 layers, large directories, memory"
REPEAT = 3
PEER = True
GUESTS = False

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
BIG_BYTES = 2 * GIB     # of the lower file for the first write and the fork
DISK_BYTES = 512 * MIB  # of that for fio
HALF = DISK_BYTES // 2  # the first half is written, the second stays lower
SPACE = 8 * GIB
SECONDS = 1             # that one run of fio lasts
DEPTH = 16
FORK_WRITES = 150_000
LOADED_FORKS = 5
LOAD_SECONDS = 2
LAYERS = 100
LAYER_WRITES = 500      # of 4 KiB into each
BRANCH_ENTRIES = 50_000
OVERLAP = 5_000         # names that both branches have
WHITEOUTS = 1_000       # names of the lower branch that the upper one hides
ENTRIES = 2 * BRANCH_ENTRIES
TIB_WRITES = 100_000
FILES = 50_000
FILES_IN_DIRECTORY = 1_000

FIRST = [
    Figure("first_open", "first write to a 2 GiB file: open", "ms", "lower"),
    Figure("first_pwrite", "first write to a 2 GiB file: pwrite 4 KiB", "ms", "lower"),
    Figure("first_write", "first write to a 2 GiB file: both", "ms", "lower"),
    Figure("randwrite_first", "… then random write 4 KiB qd 16, first touch", "IOPS", "higher"),
]
LIST = [
    Figure("list_first", "list 100,000 merged entries, just mounted", "ms", "lower"),
    Figure("list_again", "list them again", "ms", "lower"),
]
FORK = [
    Figure("fork_pause", "fork after 150,000 random writes: pause", "ms", "lower"),
    Figure("fork_drain", "… of which waiting for requests in flight", "ms", "lower"),
    Figure("fork_command", "… the whole command", "ms", "lower"),
    Figure("fork_pause_loaded", "fork under random writes: pause", "ms", "lower"),
    Figure("fork_drain_loaded", "… of which waiting for requests in flight", "ms", "lower"),
    Figure("fork_pause_loaded_worst", f"… the longest of {LOADED_FORKS} pauses", "ms", "lower"),
]
DEEP = [
    Figure("deep_randread", f"random read 4 KiB through {LAYERS} layers", "IOPS", "higher"),
    Figure("deep_randread_share", "… in proportion to one layer", "×", "higher"),
    Figure("deep_randwrite", f"random first write 4 KiB over {LAYERS} layers", "IOPS", "higher"),
    Figure("deep_randwrite_share", "… in proportion to one layer", "×", "higher"),
]
IMAGE_MEMORY = [
    Figure("tib_rss", "server after 100,000 writes all over a 1 TiB image: Rss", "MiB", "lower"),
    Figure("tib_pss", "server after 100,000 writes all over a 1 TiB image: Pss", "MiB", "lower"),
]
FILES_MEMORY = [
    Figure("files_rss", "server after a walk over many files: Rss", "MiB", "lower"),
    Figure("files_pss", "server after a walk over many files: Pss", "MiB", "lower"),
    Figure("files_walk", "the walk, with a stat of each file", "files/s", "higher"),
]


def rate(key, title, operation, unit="IOPS", **options):
    """A run of fio on the disk and its figure."""
    return Figure(key, title, unit, "higher"), operation, options


RANDOM = {"depth": DEPTH, "seconds": SECONDS}
STREAM = {"block": MIB, "depth": 4}
# In this order, on one mount: each finds what those before it have written.
DISK = [
    rate("randread_lower", "random read 4 KiB qd 16, all of it lower", "randread",
         size=DISK_BYTES, repeat=True, **RANDOM),
    rate("write_first", "sequential write 1 MiB, first touch", "write", "MiB/s", size=HALF, **STREAM),
    rate("randwrite_again", "random write 4 KiB qd 16, overwrite", "randwrite",
         size=HALF, repeat=True, **RANDOM),
    rate("randread_mixed", "random read 4 KiB qd 16, lower and written", "randread",
         size=DISK_BYTES, repeat=True, **RANDOM),
    rate("write_again", "sequential write 1 MiB, overwrite", "write", "MiB/s", size=HALF, **STREAM),
    rate("read", "sequential read 1 MiB, lower and written", "read", "MiB/s", size=DISK_BYTES, **STREAM),
]
FIGURES = FIRST + [figure for figure, _, _ in DISK] + FORK + DEEP + LIST + IMAGE_MEMORY + FILES_MEMORY
IMAGE = "image"
MANY = "many"


def targets(context):
    """ivmm, what every host has, and the peers that are installed."""
    found = [context.ivmm, Plain(), KernelOverlay()]
    if context.peers:
        wanted = [FuseOverlay(), Qcow2("qcow2 64K", "cluster_size=64k", cached=False),
                  Qcow2("qcow2 64K cached", "cluster_size=64k", cached=True),
                  Qcow2("qcow2 4K subclusters cached", "cluster_size=128k,extended_l2=on", cached=True)]
        found += [peer for peer in wanted if shutil.which(peer.program)]
        for missing in sorted({peer.program for peer in wanted if not shutil.which(peer.program)}):
            context.notes.append(f"{missing} is not installed; it is left out")
    return found


def plan(context, _):
    if not fio.installed():
        raise Failure("fio is not installed: scripts/install-packages bench")
    bench = Bench(context)
    context.settings.update({"big_bytes": BIG_BYTES, "disk_bytes": DISK_BYTES, "seconds": SECONDS,
                             "files": bench.files})
    context.notes.append("all files fit in the page cache: the plain file is read and written past it (O_DIRECT), "
                         "the servers' own files are not, but for their writing back at the end of a run")
    context.notes.append(f"memory was taken after a walk over {bench.files:,} files")
    return [
        Cell("first write", FIRST, bench.first_write),
        *(bench.disk_cell(number) for number in range(len(DISK))),
        Cell("fork", FORK, bench.fork),
        Cell("layers", DEEP, bench.deep),
        Cell("directory", LIST, bench.list_merged),
        Cell("image of 1 TiB", IMAGE_MEMORY, bench.image_memory, once=True),
        Cell("many files", FILES_MEMORY, bench.files_memory, once=True),
    ]


class Bench:
    """The lower branches, and what is mounted over them."""

    def __init__(self, context):
        self.context = context
        self.files = context.files or FILES
        self._ours = Ours(context.ivmm, context.environment)
        self._mounted = {}  # the disk's, by label
        self._folders = 0
        self._random = random.Random()
        if any(letter in context.scratch for letter in ":,"):
            raise Failure(f"{context.scratch} has a letter that mount options do not allow; name another with --dir DIR")
        free = shutil.disk_usage(context.scratch).free
        if free < SPACE:
            raise Failure(f"{context.scratch} has {free // MIB} MiB free and {SPACE // MIB} are needed; "
                          "name another folder with --dir DIR")
        self._big = self._folder("big")
        make_file(os.path.join(self._big, IMAGE), BIG_BYTES)
        self._disk = self._folder("disk")
        make_file(os.path.join(self._disk, IMAGE), DISK_BYTES)
        self._plain = self._folder("plain")  # gets written
        make_file(os.path.join(self._plain, IMAGE), DISK_BYTES)
        self._branches = [self._folder("branch1"), self._folder("branch2")]
        make_branches(*(os.path.join(branch, MANY) for branch in self._branches))
        os.sync()

    def first_write(self, target):
        data = os.urandom(4096)
        offset = self._random.randrange(BIG_BYTES // 4096) * 4096
        mount = self._mount(target, [self._big])
        started = time.perf_counter()
        fd = os.open(mount.path(IMAGE), os.O_WRONLY | os.O_CLOEXEC)
        opened = time.perf_counter()
        try:
            written = os.pwrite(fd, data, offset)
            ended = time.perf_counter()
        finally:
            os.close(fd)
        if written != len(data):
            raise Failure(f"{target.label}: a short write")
        check_block(mount.path(IMAGE), offset, data)
        iops, _ = fio.run(mount.path(IMAGE), "randwrite", size=BIG_BYTES, **RANDOM)
        mount.settle(IMAGE)
        mount.close()
        return {"first_open": (opened - started) * 1e3, "first_pwrite": (ended - opened) * 1e3,
                "first_write": (ended - started) * 1e3, "randwrite_first": iops}

    def disk_cell(self, number):
        figure, operation, options = DISK[number]

        def measure(target):
            if number == 0:
                lower = self._plain if isinstance(target, Plain) else self._disk
                self._mounted[target.label] = self._mount(target, [lower])
            mount = self._mounted[target.label]
            # What copies the whole file up does it here; the first write shows what that takes.
            if operation == "write":
                os.close(os.open(mount.path(IMAGE), os.O_WRONLY | os.O_CLOEXEC))
            iops, bytes_a_second = fio.run(mount.path(IMAGE), operation, **options)
            mount.settle(IMAGE)
            if number == len(DISK) - 1:
                self._mounted.pop(target.label).close()
            return {figure.key: iops if figure.unit == "IOPS" else bytes_a_second / MIB}

        return Cell(figure.title, [figure], measure)

    def fork(self, target):
        if target is not self.context.ivmm:
            return {}
        mount = self._mount(target, [self._big])
        path = mount.path(IMAGE)
        fio.run(path, "randwrite", size=BIG_BYTES, depth=DEPTH, ios=FORK_WRITES)
        started = time.perf_counter()
        idle = mount.fork("after")
        command = time.perf_counter() - started
        loaded = self._fork_under_load(mount, path)
        mount.close()
        pauses = [answer["pause_us"] / 1e3 for answer in loaded]
        return {"fork_pause": idle["pause_us"] / 1e3, "fork_drain": idle["drain_us"] / 1e3,
                "fork_command": command * 1e3, "fork_pause_loaded": statistics.median(pauses),
                "fork_drain_loaded": statistics.median(answer["drain_us"] / 1e3 for answer in loaded),
                "fork_pause_loaded_worst": max(pauses)}

    def _fork_under_load(self, mount, path):
        failures = []

        def load():
            try:
                fio.run(path, "randwrite", size=BIG_BYTES, depth=DEPTH, seconds=LOAD_SECONDS, repeat=True)
            except Failure as failure:
                failures.append(failure)

        thread = threading.Thread(target=load)
        started = time.monotonic()
        thread.start()
        answers = []
        try:
            for number in range(LOADED_FORKS):
                # Spread over the time that fio writes, past its start.
                due = started + LOAD_SECONDS * (number + 1) / (LOADED_FORKS + 1)
                time.sleep(max(due - time.monotonic(), 0))
                answers.append(mount.fork(f"loaded{number}"))
                if not thread.is_alive():
                    raise Failure("fio had ended before all forks under its load were done")
        finally:
            thread.join()
        if failures:
            raise failures[0]
        return answers

    def deep(self, target):
        """Both mounts hold the same writes and have an empty writable layer; what differs is how many
        layers the writes are in."""
        if target is not self.context.ivmm:
            return {}
        flat, deep = self._mount(target, [self._disk]), self._mount(target, [self._disk])
        offsets = [self._random.randrange(DISK_BYTES // 4096) * 4096 for _ in range(LAYERS * LAYER_WRITES)]
        data = os.urandom(4096)
        for mount, is_deep in ((flat, False), (deep, True)):
            fd = os.open(mount.path(IMAGE), os.O_WRONLY | os.O_CLOEXEC)
            try:
                for layer in range(LAYERS):
                    for offset in offsets[layer * LAYER_WRITES:(layer + 1) * LAYER_WRITES]:
                        os.pwrite(fd, data, offset)
                    if is_deep or layer == LAYERS - 1:
                        mount.fork(f"layer{layer}")
            finally:
                os.close(fd)
            mount.settle(IMAGE)
        check_block(deep.path(IMAGE), offsets[0], data)
        values = {}
        for operation in ("randread", "randwrite"):
            iops = {}
            for mount in (flat, deep):
                iops[mount] = fio.run(mount.path(IMAGE), operation, size=DISK_BYTES, depth=DEPTH, seconds=SECONDS)[0]
                mount.settle(IMAGE)
            values[f"deep_{operation}"] = iops[deep]
            values[f"deep_{operation}_share"] = iops[deep] / iops[flat]
        flat.close()
        deep.close()
        return values

    def list_merged(self, target):
        if isinstance(target, (Plain, Qcow2)):
            return {}
        mount = self._mount(target, self._branches)
        times = []
        for _ in range(2):
            started = time.perf_counter()
            names = os.listdir(mount.path(MANY))
            times.append((time.perf_counter() - started) * 1e3)
            if len(names) != ENTRIES or len(set(names)) != ENTRIES:
                raise Failure(f"{target.label} lists {len(names)} entries, {len(set(names))} different ones, "
                              f"and {ENTRIES} are there")
        mount.close()
        return dict(zip(("list_first", "list_again"), times))

    def image_memory(self, target):
        """The others would copy the image up, or take 64 KiB on the disk for each write."""
        if target is not self.context.ivmm:
            return {}
        lower = self._folder("tib")
        with open(os.path.join(lower, IMAGE), "wb") as file:
            try:
                file.truncate(TIB)
            except OSError as error:
                self.context.notes.append(f"no image of 1 TiB can be made here: {error.strerror}")
                return {}
        mount = self._mount(target, [lower])
        fio.run(mount.path(IMAGE), "randwrite", size=TIB, depth=DEPTH, ios=TIB_WRITES)
        mount.settle(IMAGE)
        rss, pss = mount.server_memory()
        mount.close()
        return {"tib_rss": rss, "tib_pss": pss}

    def files_memory(self, target):
        if target is not self.context.ivmm and not isinstance(target, FuseOverlay):
            return {}
        lower = self.context.file("files")
        if not os.path.isdir(lower):
            make_tree(lower, self.files)
        mount = self._mount(target, [lower])
        started = time.perf_counter()
        seen = walk(mount.point)
        took = time.perf_counter() - started
        if seen != self.files:
            raise Failure(f"{target.label} shows {seen} of {self.files} files")
        rss, pss = mount.server_memory()
        mount.close()
        return {"files_rss": rss, "files_pss": pss, "files_walk": seen / took}

    def _mount(self, target, lower):
        self._folders += 1
        union = self._ours if target is self.context.ivmm else target
        return union.mount(self._folder(f"mount{self._folders}"), lower)

    def _folder(self, name):
        path = self.context.file(name)
        os.mkdir(path)
        return path


def make_file(path, size):
    """No block of it is a hole, and no two of its MiB are alike."""
    block = bytearray(os.urandom(MIB))
    with open(path, "wb") as file:
        for number in range(size // MIB):
            block[:8] = number.to_bytes(8, "little")
            file.write(block)


def make_branches(first, second):
    """Two directories whose union has ENTRIES entries. Whiteouts are overlayfs's: devices 0/0."""
    for folder, names in ((first, range(BRANCH_ENTRIES)),
                          (second, range(BRANCH_ENTRIES - OVERLAP, ENTRIES + WHITEOUTS))):
        os.mkdir(folder)
        make_files(folder, names)
    try:
        for name in range(ENTRIES, ENTRIES + WHITEOUTS):
            os.mknod(os.path.join(first, entry(name)), stat.S_IFCHR, os.makedev(0, 0))
    except PermissionError as error:
        raise Failure("whiteouts and mounts of overlayfs take root; run it as root") from error


def make_tree(folder, count):
    os.mkdir(folder)
    for start in range(0, count, FILES_IN_DIRECTORY):
        directory = os.path.join(folder, f"d{start // FILES_IN_DIRECTORY:05}")
        os.mkdir(directory)
        make_files(directory, range(start, min(start + FILES_IN_DIRECTORY, count)))


def make_files(folder, numbers):
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for number in numbers:
            os.mknod(entry(number), stat.S_IFREG | 0o644, dir_fd=fd)
    finally:
        os.close(fd)


def entry(number):
    return f"entry-{number:07}"


def walk(folder):
    """How many files there are; each is looked at."""
    files = 0
    for path, _, names in os.walk(folder):
        for name in names:
            os.lstat(os.path.join(path, name))
            files += 1
    return files


def check_block(path, offset, data):
    with open(path, "rb", buffering=0) as file:
        if os.pread(file.fileno(), len(data), offset) != data:
            raise Failure(f"{path} does not have what was written at {offset}")
