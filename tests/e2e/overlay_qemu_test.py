#!/usr/bin/env python3
"""A QEMU guest whose disk is a file of the overlay, which is forked while the guest writes."""

import shutil

import harness
import overlay_guest_test
import overlay_test

QEMU = "qemu-system-x86_64"


class QemuGuest(harness.Program):
    """Interpreted: no host's KVM decides whether the guest's kernel runs in QEMU."""

    def __init__(self, kernel, disk, cache):
        super().__init__([
            QEMU, "-M", "microvm,acpi=off", "-accel", "tcg", "-cpu", "qemu64", "-m", "128",
            "-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-serial", "stdio",
            "-kernel", kernel, "-append", f"{overlay_guest_test.CMDLINE} console=ttyS0",
            "-drive", f"id=disk,if=none,format=raw,file={disk},{cache}",
            "-device", "virtio-blk-device,drive=disk"])

    def power_off(self):
        """This machine cannot be switched off from within."""
        self.type("poweroff\n")
        self.wait_for("System halted")
        self.process.terminate()
        if self.wait_end() != 0:
            raise AssertionError(self.log)


class QemuTest(overlay_guest_test.ForkUnderLoad):
    def run_with(self, cache):
        self.run_forks(lambda disk: QemuGuest(self.images.kernel / "vmlinux", disk, cache))

    def test_forks_while_it_writes_past_the_page_cache(self):
        self.run_with("cache=none,aio=io_uring")

    def test_forks_while_it_writes_through_the_page_cache(self):
        self.run_with("cache=writeback,aio=threads")


if __name__ == "__main__":
    if not shutil.which(QEMU):
        harness.skip(f"{QEMU} is not installed")
    overlay_test.require_fuse()
    overlay_guest_test.ForkUnderLoad.images = harness.LinuxImages()
    harness.main()
