#!/usr/bin/env python3
"""The Linux guest: it boots, serves the network, keeps its files, and ends well."""

import http.client
import subprocess
import unittest

import harness

ADDRESS = "10.77.0.2"
BASE_CMDLINE = "root=/dev/vda rootfstype=ext4 rw quiet"
PROMPT = ":~# "


def fetch(path="/", timeout=10):
    """The page, or None while nobody answers."""
    connection = http.client.HTTPConnection(ADDRESS, timeout=timeout)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    except OSError:
        return None
    finally:
        connection.close()


def fsck(disk):
    return subprocess.run(["e2fsck", "-fn", disk], capture_output=True, text=True)


def file_in(disk, path):
    """The content of a file in an ext4 image."""
    shown = subprocess.run(["debugfs", "-R", f"cat {path}", disk], capture_output=True, text=True)
    return shown.stdout


class LinuxGuestTest(unittest.TestCase):
    def setUp(self):
        self.workspace = harness.Workspace()
        self.addCleanup(self.workspace.close)
        self.disk = images.copy_disk(self.workspace.path)

    def start(self, *arguments, kernel="vmlinux", cmdline=BASE_CMDLINE):
        guest = harness.Guest(
            self.workspace, "linux", "--kernel", images.kernel / kernel, "--mem", "128M",
            "--disk", self.disk, "--cmdline", cmdline, *arguments,
        )
        self.addCleanup(guest.close)
        return guest

    def ssh(self, command):
        return subprocess.run(
            ["ssh", "-F", "none", "-i", images.rootfs / "id_ed25519", "-o", "BatchMode=yes",
             "-o", f"UserKnownHostsFile={images.rootfs / 'known_hosts'}",
             "-o", "HostKeyAlias=ivmm-guest", "-o", "ConnectTimeout=30",
             f"root@{ADDRESS}", command],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
        )

    def test_a_server_from_boot_to_power_off(self):
        guest = self.start(
            "--net", "tap=tap0,host=10.77.0.1/24",
            cmdline=f"{BASE_CMDLINE} ivmm.ip={ADDRESS}/24 ivmm.gw=10.77.0.1",
        )
        print(f"shell after {guest.wait_for(PROMPT):.1f} s", flush=True)
        print(f"services after {guest.wait_for('ivmm-guest: ready'):.1f} s", flush=True)

        self.assertIn("ivmm guest", fetch() or "")

        login = self.ssh("cd /tmp && pwd && echo kept >/root/file && sync && cat /proc/cmdline")
        self.assertEqual(login.returncode, 0, login.stderr)
        self.assertTrue(login.stdout.startswith("/tmp\n"), login.stdout)
        self.assertIn(f"ivmm.ip={ADDRESS}/24", login.stdout)

        guest.type("echo con''sole\n")
        guest.wait_for("console\r\n")

        status = guest.status()
        self.assertEqual(status["state"], "running")
        self.assertIn("linux", self.workspace.ivmm("ls").stdout)

        self.assertEqual(self.workspace.ivmm("pause", "linux").returncode, 0)
        self.assertEqual(guest.status()["state"], "paused")
        self.assertIsNone(fetch(timeout=2), "a paused guest answers")
        self.assertEqual(self.workspace.ivmm("resume", "linux").returncode, 0)
        self.assertIn("ivmm guest", harness.eventually(fetch) or "")

        self.ssh("poweroff")
        self.assertEqual(guest.wait_end(), 0)
        self.assertIn("powered itself off", guest.log)
        self.assertEqual(self.workspace.leftovers(), [])
        checked = fsck(self.disk)
        self.assertEqual(checked.returncode, 0, checked.stdout)
        self.assertEqual(file_in(self.disk, "/root/file"), "kept\n")

    def test_what_was_synced_survives_a_power_cut(self):
        guest = self.start()
        guest.wait_for(PROMPT)
        guest.type("echo kept >/root/file; sync; echo syn''ced\n")
        guest.wait_for("synced")
        self.assertEqual(self.workspace.ivmm("stop", "linux").returncode, 0)
        self.assertEqual(guest.wait_end(), 0)
        # The journal is what a power cut leaves to be replayed.
        subprocess.run(["e2fsck", "-p", self.disk], capture_output=True)
        checked = fsck(self.disk)
        self.assertEqual(checked.returncode, 0, checked.stdout)
        self.assertEqual(file_in(self.disk, "/root/file"), "kept\n")

    def test_without_acpi_it_finds_everything_too(self):
        guest = self.start("--no-acpi")
        guest.wait_for(PROMPT)
        guest.type("poweroff\n")
        self.assertEqual(guest.wait_end(), 0)
        self.assertIn("powered itself off", guest.log)

    def test_the_bzimage_unpacks_itself_and_boots(self):
        guest = self.start(kernel="bzImage")
        guest.wait_for(PROMPT)
        self.assertEqual("takes long to unpack itself" in guest.log,
                         guest.status()["host"] == "kvm_pvm")

    def test_a_virtio_console_can_be_the_console(self):
        guest = self.start(cmdline=f"{BASE_CMDLINE} console=hvc0")
        guest.wait_for(PROMPT)
        guest.type("echo con''sole\n")
        guest.wait_for("console\r\n")

    def test_a_reboot_ends_the_guest_and_says_so(self):
        guest = self.start()
        guest.wait_for(PROMPT)
        guest.type("reboot\n")
        self.assertEqual(guest.wait_end(), 0)
        self.assertIn("has reset itself", guest.log)

    def test_a_panic_is_told_from_a_reset(self):
        guest = self.start(cmdline="root=/dev/nowhere quiet")
        self.assertEqual(guest.wait_end(120), 1)
        self.assertIn("kernel has panicked", guest.log)
        self.assertIn("Kernel panic - not syncing", guest.console)


if __name__ == "__main__":
    harness.require_kvm()
    harness.enter_own_network()
    images = harness.LinuxImages()
    harness.main()
