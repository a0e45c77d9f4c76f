"""What the scenario `switch` compares: what can be between two network namespaces, each in a
namespace of its own. Nothing outside of these is touched, and with the processes all of it is gone."""

import contextlib
import os
import shutil
import subprocess
import time

from .errors import Failure

PATIENCE = 20  # seconds that something may take to be there
NEAR, FAR = "10.111.0.1", "10.111.0.2"
OVS_SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"


class Namespace:
    """A network namespace, held by a process that sleeps."""

    def __init__(self, programs):
        self._programs = programs
        self._holder = programs.start(["unshare", "--net", "sleep", "infinity"])
        own = os.stat("/proc/self/ns/net").st_ino
        wait_until("a network namespace", lambda: os.stat(self._path()).st_ino != own)
        self.run("ip", "link", "set", "lo", "up")

    def _path(self):
        return f"/proc/{self._holder.pid}/ns/net"

    def words(self, *argv):
        return ["nsenter", f"--net={self._path()}", *argv]

    def run(self, *argv, timeout=PATIENCE):
        return call(self.words(*argv), timeout)

    def start(self, *argv, environment=None):
        return self._programs.start(self.words(*argv), environment)

    def take(self, other, interface):
        """Moves an interface here from another one."""
        wait_until(interface, lambda: other.has(interface))
        other.run("ip", "link", "set", interface, "netns", str(self._holder.pid))

    def has(self, interface):
        return subprocess.run(self.words("ip", "link", "show", interface), capture_output=True,
                              timeout=PATIENCE, check=False).returncode == 0

    def received(self, interface):
        """Frames that have come in at an interface."""
        fields = self.run("ip", "-s", "-o", "link", "show", interface).partition("RX:")[2].split("\\")
        return int(fields[1].split()[1])

    def mac(self, interface):
        words = self.run("ip", "-o", "link", "show", interface).split()
        return words[words.index("link/ether") + 1]


class Programs:
    """What was started, to be ended in the end."""

    def __init__(self, folder):
        self._log = os.path.join(folder, "log")
        self._running = []

    def start(self, argv, environment=None):
        with open(self._log, "ab") as log:
            # pylint: disable=consider-using-with  # they are waited for in end()
            program = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=log,
                                       env=environment, start_new_session=True)
        self._running.append(program)
        return program

    def end(self):
        for program in reversed(self._running):
            program.kill()
            program.wait()
            program.stdin.close()


class Between:
    """Two namespaces with the interface `port` each, and what is measured between them."""
    port = "port"
    needs = ()
    settings = ()  # for ethtool: what a peer cannot do

    @contextlib.contextmanager
    def set_up(self, context):
        folder = context.file(f"switch.{self.label.replace(' ', '-')}")
        os.makedirs(folder)
        programs = Programs(folder)
        try:
            self.hub, self.near, self.far = (Namespace(programs) for _ in range(3))
            self.connect(context, folder, {self.near: "pa", self.far: "pb"})
            for namespace, name, address in ((self.near, "pa", NEAR), (self.far, "pb", FAR)):
                namespace.run("ip", "link", "set", name, "name", self.port)
                if self.settings:
                    namespace.run("ethtool", "-K", self.port, *self.settings)
                namespace.run("ip", "address", "add", f"{address}/24", "dev", self.port)
                namespace.run("ip", "link", "set", self.port, "up")
            wait_until("the other namespace", self._answers)
            yield self
        finally:
            programs.end()
            shutil.rmtree(folder, ignore_errors=True)

    def _answers(self):
        return subprocess.run(self.near.words("ping", "-c", "1", "-W", "1", FAR), capture_output=True,
                              timeout=PATIENCE, check=False).returncode == 0

    def connect(self, context, folder, ports):
        """Brings the two together: an interface of the name given in each namespace."""
        raise NotImplementedError

    def veths(self, ports):
        """Pairs of virtual interfaces: one end in each namespace, the others in the hub."""
        ends = []
        for namespace, name in ports.items():
            ends.append(f"hub{name}")
            self.hub.run("ip", "link", "add", name, "type", "veth", "peer", "name", ends[-1])
            self.hub.run("ip", "link", "set", ends[-1], "up")
            namespace.take(self.hub, name)
        return ends


class OurSwitch(Between):
    """`ivmm switch`, with a TAP in each namespace."""
    label = "ivmm"

    def connect(self, context, folder, ports):
        self.hub.start(context.ivmm.path, "switch", "run", "bench",
                       *(word for name in ports.values() for word in ("--uplink", name)),
                       environment=context.environment)
        for namespace, name in ports.items():
            namespace.take(self.hub, name)


class Bridge(Between):
    label = "bridge and veth"

    def connect(self, context, folder, ports):
        self.hub.run("ip", "link", "add", "bridge", "type", "bridge")
        self.hub.run("ip", "link", "set", "bridge", "up")
        for end in self.veths(ports):
            self.hub.run("ip", "link", "set", end, "master", "bridge")


class Vde(Between):
    """Debian's vde2, with a TAP in each namespace."""
    label = "VDE2"
    needs = ("vde_switch",)

    def connect(self, context, folder, ports):
        self.hub.start("vde_switch", "-s", os.path.join(folder, "vde"),
                       *(word for name in ports.values() for word in ("-t", name)))
        for namespace, name in ports.items():
            namespace.take(self.hub, name)


class OpenVSwitch(Between):
    """Open vSwitch with its datapath in userspace. It knows no offloads on a veth."""
    label = "Open vSwitch"
    needs = ("ovsdb-tool", "ovsdb-server", "ovs-vswitchd", "ovs-vsctl", "ethtool")
    settings = ("tx", "off", "tso", "off", "gso", "off")

    def connect(self, context, folder, ports):
        # Its sockets need a short path.
        folder = os.path.dirname(context.socket("ovs")) + "/ovs"
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        environment = dict(os.environ, OVS_RUNDIR=folder, OVS_LOGDIR=folder, OVS_DBDIR=folder)
        database, remote = f"{folder}/conf.db", f"unix:{folder}/db.sock"
        call(["ovsdb-tool", "create", database, OVS_SCHEMA])
        self.hub.start("ovsdb-server", database, f"--remote=p{remote}", environment=environment)
        wait_until("ovsdb-server", lambda: os.path.exists(f"{folder}/db.sock"))
        control = ["ovs-vsctl", f"--db={remote}", f"--timeout={PATIENCE}"]
        call([*control, "--no-wait", "init"])
        self.hub.start("ovs-vswitchd", remote, environment=environment)
        words = ["add-br", "bridge", "--", "set", "bridge", "bridge", "datapath_type=netdev"]
        for end in self.veths(ports):
            words += ["--", "add-port", "bridge", end]
        call([*control, *words])


PEERS = (Bridge, Vde, OpenVSwitch)


def wait_until(what, condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() >= deadline:
            raise Failure(f"{what} was not there within {PATIENCE} s")
        time.sleep(0.01)


def call(argv, timeout=PATIENCE):
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failure(f"{' '.join(argv)}: {error}") from error
    if done.returncode != 0:
        raise Failure(f"{' '.join(argv)} has failed: {(done.stderr or done.stdout).strip()[-400:]}")
    return done.stdout
