"""What memory a process takes beyond that of its guest."""

import re

HEADER = re.compile(r"^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+ *(.*)$")
FIELD = re.compile(r"^(Rss|Pss|Private_Clean|Private_Dirty): +(\d+) kB$")


class Usage:
    """Sums over mappings, in KiB."""

    def __init__(self):
        self.rss = self.pss = self.private = 0

    def add(self, field, kib):
        if field == "Rss":
            self.rss += kib
        elif field == "Pss":
            self.pss += kib
        else:
            self.private += kib


def split_smaps(lines, guest_mapping):
    """Reads /proc/PID/smaps: (usage of all else, usage of the guest's memory, whether that is mapped).
    None as its name: it is not told from the rest."""
    rest, guest = Usage(), Usage()
    current, mapped = rest, False
    for line in lines:
        field = FIELD.match(line)
        if field:
            current.add(field[1], int(field[2]))
            continue
        header = HEADER.match(line)
        if header:
            is_guest = guest_mapping is not None and guest_mapping in header[1]
            mapped = mapped or is_guest
            current = guest if is_guest else rest
    return rest, guest, mapped


def of_process(pid, guest_mapping):
    """As split_smaps(); None when the process has ended or may not be read."""
    try:
        with open(f"/proc/{pid}/smaps", encoding="utf-8", errors="replace") as file:
            return split_smaps(file, guest_mapping)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None


def processes_with(pids, guest_mapping):
    """(usage of the process that maps the guest's memory, of that memory, of all processes' else)."""
    vmm = guest = None
    total = Usage()
    for pid in pids:
        usage = of_process(pid, guest_mapping)
        if usage is None:
            continue
        rest, memory, mapped = usage
        total.rss += rest.rss
        total.pss += rest.pss
        total.private += rest.private
        if mapped:
            vmm, guest = rest, memory
    return vmm, guest, total
