#!/usr/bin/env python3
"""Debian's cloud kernel, as it is shipped: loaded, unpacked, started; as far as the host lets it."""

import pathlib
import subprocess
import unittest

import harness

GUEST_IMAGES = pathlib.Path(__file__).parents[2] / "guest-images"
EMULATES_KERNELS = pathlib.Path("/sys/module/kvm_pvm").exists()


class StockKernelTest(unittest.TestCase):
    def test_it_starts(self):
        fetched = subprocess.run([GUEST_IMAGES / "stock-kernel"], check=True, text=True,
                                 stdout=subprocess.PIPE)
        workspace = harness.Workspace()
        self.addCleanup(workspace.close)
        guest = harness.Guest(
            workspace, "stock", "--kernel", pathlib.Path(fetched.stdout.strip()) / "vmlinuz",
            "--mem", "512M", "--cmdline", "console=ttyS0 earlyprintk=ttyS0,115200")
        self.addCleanup(guest.close)
        code = guest.wait_end(800)
        for text in ("Linux version 6.1", "Booting paravirtualized kernel on KVM",
                     "ACPI: Using ACPI (MADT) for SMP configuration", "console [ttyS0] enabled"):
            self.assertIn(text, guest.console)
        self.assertEqual(code, 1, guest.log)
        if EMULATES_KERNELS:
            # Its first test of its own int3 is an instruction that the host does not know.
            for text in ("cannot emulate", "RIP 0x", "instruction cc ", "kvm_intel or kvm_amd"):
                self.assertIn(text, guest.log)
        else:
            self.assertIn("Unable to mount root fs", guest.console)
            self.assertIn("panicked", guest.log)
        self.assertEqual(workspace.leftovers(), [])


if __name__ == "__main__":
    harness.require_kvm()
    harness.main()
