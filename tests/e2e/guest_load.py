"""A write load for a Linux guest whose every block tells what it is, and what must be found of it
on the guest's disk, whatever the instant at which the disk was cut off."""

import collections
import itertools
import re
import subprocess
import tempfile

FIRST_EPOCH = 10
FIRST_ROUND = 1001
NOTHING = FIRST_ROUND - 1  # the last round on a disk where no load ran
BLOCK = 4096
APPENDED = range(10, 18)
OVERWRITTEN = range(20, 24)
NEW = 30
DIRECT = 40
DIRECT_BLOCKS = range(1000, 1256)
FIRST_PASS = 10
MOST_PASSES = 89

# Without processes, as far as possible: starting one takes long where guest kernels are emulated.
# What is overwritten is not written back at that moment, as the last round has flushed it; so the
# disk never gets a block that is half old.
SCRIPT = f"""
cd $1
epoch={FIRST_EPOCH} round={FIRST_ROUND}
block() {{
    b="epoch $epoch round $round part $1 ...................................
"
    b=$b$b; b=$b$b; b=$b$b; b=$b$b; b=$b$b; b=$b$b
    echo -n "$b"
}}
# Goes over a file $2 times, each block on the disk before the next one is written.
for epoch in $(seq {FIRST_PASS + 1} $(({FIRST_PASS} + $2))); do
    for round in $(seq {DIRECT_BLOCKS[0]} {DIRECT_BLOCKS[-1]}); do block {DIRECT}; done |
        dd of=direct bs={BLOCK} oflag=direct conv=notrunc 2>/dev/null
done &
while [ "$epoch" ]; do
    for part in {" ".join(map(str, APPENDED))}; do block $part; done >>log
    for part in {" ".join(map(str, OVERWRITTEN))}; do block $part 1<>slot.$part; done
    block {NEW} >new.$round
    sync
    echo "flushed $round in epoch $epoch."
    if read -t 0; then read -r epoch; fi
    round=$((round + 1))
done
kill $! 2>/dev/null
echo "load has ended"
"""


def install(disk, *folders):
    """Puts the load into an ext4 image, and folders for it to write to."""
    with tempfile.TemporaryDirectory() as scratch:
        script, direct = f"{scratch}/load", f"{scratch}/direct"
        with open(script, "w") as file:
            file.write(SCRIPT)
        with open(direct, "wb") as file:
            for number in DIRECT_BLOCKS:
                file.write(_block(FIRST_PASS, number, DIRECT))
        debugfs(disk, f"write {script} /root/load", "-w")
        for folder in folders:
            debugfs(disk, f"mkdir {folder}", "-w")
            debugfs(disk, f"write {direct} {folder}/direct", "-w")


def _block(epoch, round_number, part):
    line = f"epoch {epoch} round {round_number} part {part} {'.' * 35}\n".encode()
    return line * (BLOCK // len(line))


class Load:
    """The load that runs in a guest, started from its shell."""

    def __init__(self, guest, folder, passes=MOST_PASSES):
        self._guest = guest
        self._heard = len(guest.console)
        self._epoch = FIRST_EPOCH
        guest.type(f"sh /root/load {folder} {passes}\n")

    def flushed(self):
        """The last round that the guest has reported."""
        reports = re.findall(r"flushed (\d+) in", self._guest.console[self._heard:])
        return int(reports[-1]) if reports else NOTHING

    def wait_for_epoch(self):
        """Waits until a round of this epoch is on the disk, all of it."""
        self._guest.wait_for(f"in epoch {self._epoch}.")

    def next_epoch(self):
        """All that is written once the guest has heard of it tells the new epoch."""
        self._epoch += 1
        self._guest.type(f"{self._epoch}\n")

    @property
    def epoch(self):
        return self._epoch

    def end(self):
        self._guest.type("\n")
        self._guest.wait_for("load has ended")


def replay_journal(disk):
    """What a mount does after a power cut, and nothing else: no mistake is mended."""
    done = subprocess.run(["e2fsck", "-y", "-E", "journal_only", disk], capture_output=True,
                          text=True)
    if done.returncode != 0:
        raise AssertionError(f"e2fsck -E journal_only: {done.stdout}{done.stderr}")


def check_file_system(disk):
    done = subprocess.run(["e2fsck", "-fn", disk], capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError(f"e2fsck -fn {disk}: {done.stdout}{done.stderr}")


def check_data(disk, folder, flushed, last_epoch, complete=False):
    """Every round up to `flushed` is there, later ones are exact or not there, and no block is of
    an epoch after `last_epoch`. `complete`: the load has ended after that round. Returns the last
    round of which anything is there."""
    with tempfile.TemporaryDirectory() as scratch:
        debugfs(disk, f"rdump {folder} {scratch}")
        found = _Found(f"{scratch}/{folder.rpartition('/')[2]}", flushed)
    for round_number, epochs in found.epochs.items():
        _expect(len(epochs) == 1, f"round {round_number} tells epochs {epochs}")
    epochs = [epochs.pop() for _, epochs in sorted(found.epochs.items())]
    _expect(epochs == sorted(epochs), f"the epochs go back: {epochs}")
    _expect(not epochs or epochs[-1] <= last_epoch, f"a block of epoch {epochs[-1:]} is there")
    last = max(found.epochs, default=NOTHING)
    if complete:
        _expect(last == flushed, f"round {last} is there after {flushed}")
        _expect(found.last_pass > FIRST_PASS, "nothing was written past the guest's page cache")
    return last


class _Found:
    """Reads and checks the files of a load."""

    def __init__(self, folder, flushed):
        self._folder = folder
        self._flushed = flushed
        self.last_pass = None
        self.epochs = collections.defaultdict(set)  # of each round that left a block
        names = {"log", "direct", *(f"slot.{part}" for part in OVERWRITTEN)}
        self._check_direct()
        self._check_log()
        for part in OVERWRITTEN:
            self._check_slot(part)
        for round_number in itertools.count(FIRST_ROUND):
            names.add(f"new.{round_number}")
            if not self._check_new(round_number):
                break
        present = subprocess.run(["ls", folder], capture_output=True, text=True).stdout.split()
        _expect(set(present) <= names, f"unknown files: {set(present) - names}")

    def _check_direct(self):
        """The disk is as it was at one instant: what was written last is there, and all before."""
        blocks = self._blocks("direct")
        _expect(len(blocks) == len(DIRECT_BLOCKS), f"direct has {len(blocks)} blocks")
        passes = [_told(block, DIRECT, number)[0] for block, number in zip(blocks, DIRECT_BLOCKS)]
        self.last_pass = passes[0]
        _expect(passes == sorted(passes, reverse=True) and passes[0] - passes[-1] <= 1,
                f"older blocks are before newer ones: {passes}")

    def _check_log(self):
        blocks = self._blocks("log")
        _expect(len(blocks) >= self._flushed_rounds() * len(APPENDED), "the log is too short")
        order = ((r, part) for r in itertools.count(FIRST_ROUND) for part in APPENDED)
        for block, (round_number, part) in zip(blocks, order):
            self._check(block, part, round_number)

    def _check_slot(self, part):
        blocks = self._blocks(f"slot.{part}")
        if self._flushed_rounds() or any(map(any, blocks)):
            _expect(len(blocks) == 1, f"slot.{part} has {len(blocks)} blocks")
            self._check(blocks[0], part)

    def _check_new(self, round_number):
        """False: there is no such file, and need not be."""
        blocks = self._blocks(f"new.{round_number}")
        if blocks:
            _expect(len(blocks) == 1, f"new.{round_number} has {len(blocks)} blocks")
            self._check(blocks[0], NEW, round_number)
        else:
            _expect(round_number > self._flushed, f"new.{round_number} is missing or empty")
        return bool(blocks)

    def _flushed_rounds(self):
        return self._flushed - NOTHING

    def _blocks(self, name):
        try:
            with open(f"{self._folder}/{name}", "rb") as file:
                data = file.read()
        except FileNotFoundError:
            return []
        _expect(len(data) % BLOCK == 0, f"{name} has {len(data)} bytes")
        return [data[at:at + BLOCK] for at in range(0, len(data), BLOCK)]

    def _check(self, block, part, round_number=None):
        """A block of that part and round; of any that may be there without a round."""
        # ext4 may grow a file, with zeros, before what was not flushed is in it.
        if round_number and round_number > self._flushed and not any(block):
            return
        epoch, told_round = _told(block, part, round_number)
        if round_number is None:
            _expect(told_round >= self._flushed, f"part {part} is still of round {told_round}")
        self.epochs[told_round].add(epoch)


def _told(block, part, round_number=None):
    """The epoch and the round that a block of that part tells; the round must be that one."""
    header = re.match(rb"epoch (\d\d) round (\d{4}) part (\d\d) ", block)
    told = [int(number) for number in header.groups()] if header else [0, 0, 0]
    _expect(block == _block(*told), f"a block of part {part} is damaged: {block[:64]}… "
            f"{block[-64:]}")
    _expect(told[2] == part, f"part {told[2]} is where part {part} should be")
    _expect(round_number in (None, told[1]), f"round {told[1]} instead of {round_number}")
    return told[:2]


def debugfs(disk, request, *options):
    done = subprocess.run(["debugfs", *options, "-R", request, disk], capture_output=True,
                          text=True)
    # It always ends with 0; its first line is its version.
    problems = done.stderr.splitlines()[1:]
    if problems:
        raise AssertionError(f"debugfs {request}: {problems}")
    return done.stdout


def _expect(condition, what):
    if not condition:
        raise AssertionError(what)
