"""A Linux server on an overlay and a switch, with a standby, and people who use it from elsewhere.
For tests, the benchmark and the demo."""

import json
import subprocess

import harness
import peers

GUEST = harness.LinuxSnapshot.ADDRESS
NAME = "linux"


class Site:
    """Everything of it ends with close(). Needs root and a network namespace of its own."""

    def __init__(self, images, snapshot):
        self.images = images
        self.snapshot = snapshot
        self.workspace = harness.Workspace()
        self.mnt = self.workspace.path / "mnt"
        self.store = self.workspace.path / "store"
        self.disk = self.mnt / "disk.ext4"
        self.captures = self.workspace.path / "captures"
        for folder in (self.mnt, self.captures):
            folder.mkdir()
        self.events_file = self.captures / "events.json"
        self.main = None  # the guest's console
        self._to_close = []

    def ivmm(self, *arguments):
        """What a command prints that must succeed."""
        done = self.workspace.ivmm(*arguments)
        if done.returncode != 0:
            raise AssertionError(f"ivmm {' '.join(map(str, arguments))}: {done.stderr}")
        return done.stdout

    def ask(self, *arguments):
        return json.loads(self.ivmm(*arguments, "--json"))

    def program(self, *argv):
        program = harness.Program(argv, self.workspace.environment)
        self._to_close.append(program)
        return program

    def peer(self, name, network):
        peer = peers.Peer(name, network)
        self._to_close.append(peer)
        return peer

    def start(self):
        """The server serves, and has a standby; its console's shell."""
        self.ivmm("overlay", "mount", "-o", f"lower={self.snapshot.path},upper={self.store}",
                  self.mnt)
        switch = self.program(
            harness.IVMM, "switch", "run", "lan", "--uplink",
            f"up0,host={harness.LinuxSnapshot.HOST}", "--capture", self.captures, "--events",
            self.events_file)
        switch.wait_for("runs")
        peers.route_between()
        self.main = harness.Restored(self.workspace, self.snapshot.path / "snapshot", NAME,
                                     "--disk", self.disk, "--net", "switch=lan")
        self._to_close.append(self.main)
        self.main.type("\n")
        self.main.wait_for(harness.LinuxSnapshot.PROMPT)
        self.ivmm("standby", NAME)
        return harness.Shell(self.main)

    def ssh(self, peer, *arguments):
        """A command that runs ssh on another machine."""
        rootfs = self.images.rootfs
        return peer.prefix(
            "ssh", "-F", "none", "-i", rootfs / "id_ed25519", "-o", "BatchMode=yes",
            "-o", f"UserKnownHostsFile={rootfs / 'known_hosts'}", "-o", "HostKeyAlias=ivmm-guest",
            "-o", "ConnectTimeout=60", *arguments)

    def log_in(self, peer):
        """A person at a shell of the server, from another machine."""
        session = self.program(*self.ssh(peer, "-tt", f"root@{GUEST}"))
        session.wait_for("# ")
        return harness.Shell(session)

    def console(self, guest):
        console = self.program(harness.IVMM, "console", guest)
        console.type("\n")
        console.wait_for("# ")
        return harness.Shell(console)

    def flow_owners(self, address):
        """Who has the flows of an address."""
        flows = self.ask("flows", NAME, "--peer", address)["flows"]
        return {flow["owner"] for flow in flows}

    def events(self):
        return [json.loads(line) for line in self.events_file.read_text().splitlines()]

    def remove(self, clone, attacker):
        """Ends a clone, and gives its attacker back to the primary."""
        self.ivmm("stop", clone)
        harness.eventually(lambda: clone not in self.ivmm("ls"))
        self.ivmm("rm", clone)
        self.ivmm("undivert", NAME, "--attacker", attacker)

    def close(self):
        while self._to_close:
            self._to_close.pop().close()
        runtime = self.workspace.path / "ivmm"
        for record in runtime.glob("*.clone"):  # what a failure has left
            self.workspace.ivmm("rm", "--force", record.stem)
        if subprocess.run(["mountpoint", "-q", self.mnt], check=False).returncode == 0:
            self.workspace.ivmm("overlay", "umount", "--force", self.mnt)
        self.workspace.close()
