"""What is measured: ivmm, and its peer, the microvm machine of QEMU."""

import dataclasses
import json
import os
import shutil
import subprocess

from .errors import Unusable

QEMU = "qemu-system-x86_64"
MICROVM = "microvm,accel=kvm,acpi=off,rtc=off,pit=on,pic=on,isa-serial=on,x-option-roms=off"
# kvm_pvm offers an MSR that it then refuses to set, and QEMU gives up; no test guest reads it.
CPU = "host,-arch-capabilities"


@dataclasses.dataclass(frozen=True)
class Guest:
    kernel: str
    cmdline: str = ""
    memory_mib: int = 128
    cpus: int = 1
    disk: str | None = None
    acpi: bool = False  # in ivmm only: off, both machines describe themselves in the same way


class Ivmm:
    label = "ivmm"
    guest_mapping = "memfd:ivmm-guest"

    def __init__(self, path):
        self.path = path

    def command(self, guest, name):
        argv = [self.path, "run", "--name", name, "--kernel", guest.kernel,
                "--mem", f"{guest.memory_mib}M", "--cpus", str(guest.cpus)]
        if not guest.acpi:
            argv.append("--no-acpi")
        if guest.disk:
            argv += ["--disk", guest.disk]
        if guest.cmdline:
            argv += ["--cmdline", guest.cmdline]
        return argv

    def ended_well(self, exit_code):
        return exit_code == 0


class Qemu:
    guest_mapping = "memfd:memory-backend-memfd"

    def __init__(self, path, aio, label="qemu"):
        self.path = path
        self.aio = aio
        self.label = label

    def command(self, guest, name):
        # The guest's memory is a shared memfd as in ivmm: the same cost of a page, and it can be
        # told from the rest.
        argv = [self.path, "-name", name, "-M", f"{MICROVM},memory-backend=ram",
                "-object", f"memory-backend-memfd,id=ram,size={guest.memory_mib}M,share=on",
                "-m", str(guest.memory_mib), "-smp", str(guest.cpus), "-cpu", CPU,
                "-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-serial", "stdio",
                "-global", "virtio-mmio.force-legacy=false",
                "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-kernel", guest.kernel]
        if guest.disk:
            argv += ["-object", "iothread,id=io",
                     "-blockdev", f"driver=file,node-name=disk,filename={guest.disk},aio={self.aio}",
                     "-device", "virtio-blk-device,drive=disk,iothread=io"]
        if guest.cmdline:
            argv += ["-append", guest.cmdline]
        return argv

    def ended_well(self, exit_code):
        # The test guests end it through isa-debug-exit, whose codes are odd.
        return exit_code == 0 or exit_code % 2 == 1


def find_ivmm(given, folder):
    """The program to measure; `folder` is where the harness was called from."""
    if given:
        path = given
    else:
        source = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
        places = [os.path.join(folder, "ivmm")]
        places += [os.path.join(source, "build", preset, "ivmm") for preset in ("release", "dev")]
        path = next((place for place in places if os.access(place, os.X_OK)), None)
        if path is None:
            raise Unusable(f"no ivmm found: not at {', '.join(places)}; build it "
                           "(cmake --preset release && cmake --build --preset release), "
                           "or name it with --ivmm PATH")
    if not os.path.isfile(path) or not os.access(path, os.X_OK):
        raise Unusable(f"{path} is not a program; name ivmm with --ivmm PATH")
    return os.path.abspath(path)


def find_guests(given, ivmm):
    """The folder of the test guests: by default beside ivmm."""
    folder = os.path.abspath(given or os.path.join(os.path.dirname(ivmm), "guests"))
    if not os.path.isfile(os.path.join(folder, "first.elf")):
        raise Unusable(f"no test guests in {folder} (first.elf is missing); "
                       "build them, or name their folder with --guests DIR")
    return folder


class QemuHost:
    """What the installed QEMU can do; `path` is None without one."""

    def __init__(self):
        self.path = shutil.which(QEMU)
        self.version = None
        self.aio = []
        if self.path:
            said = subprocess.run([self.path, "--version"], capture_output=True, text=True,
                                  timeout=30, check=False).stdout
            self.version = said.splitlines()[0].removeprefix("QEMU emulator version ") if said else "?"

    def probe_aio(self, file):
        """Finds which of the ways to read a file asynchronously work here."""
        quit_at_once = "\n".join(json.dumps({"execute": name}) for name in ("qmp_capabilities", "quit"))
        self.aio = []
        for aio in ("io_uring", "threads"):
            done = subprocess.run(
                [self.path, "-M", "none", "-nodefaults", "-no-user-config", "-display", "none",
                 "-qmp", "stdio", "-blockdev", f"driver=file,node-name=d,filename={file},aio={aio}"],
                input=quit_at_once, capture_output=True, text=True, timeout=30, check=False)
            if done.returncode == 0:
                self.aio.append(aio)
        return self.aio
