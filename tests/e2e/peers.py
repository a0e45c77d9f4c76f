"""Machines on the Internet: network namespaces behind a router, from where a guest is used."""

import os
import subprocess


def run(*command):
    return subprocess.run([*map(str, command)], check=True, capture_output=True, text=True).stdout


def inside(namespace, *command):
    """The command as it is run in a network namespace of `ip netns`. (`ip netns exec` and `ip -n`
    want the root directory to be a mount point, which in a chroot it is not.)"""
    return ["nsenter", f"--net=/run/netns/{namespace}", *map(str, command)]


class Peer:
    """A machine that reaches the guests through this process's namespace."""

    ADDRESSES = 100

    def __init__(self, name, network):
        """`network`: the first three bytes of its addresses."""
        self.addresses = [f"{network}.{i}" for i in range(2, 2 + self.ADDRESSES)]
        self.address = self.addresses[0]
        self.namespace = f"ivmm{os.getpid()}{name}"
        self.link = link = f"{name}-{os.getpid()}"[:15]
        run("ip", "netns", "add", self.namespace)
        try:
            run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns",
                self.namespace)
            run("ip", "address", "add", f"{network}.1/24", "dev", link)
            run("ip", "link", "set", link, "up")
            commands = [f"address add {address}/24 dev eth0" for address in self.addresses]
            commands += ["link set lo up", "link set eth0 up",
                         f"route add default via {network}.1"]
            subprocess.run(self.prefix("ip", "-batch", "-"), check=True,
                           input="\n".join(commands), text=True)
        except BaseException:
            self.close()
            raise

    def prefix(self, *command):
        """The command as this machine runs it."""
        return inside(self.namespace, *command)

    def counters(self, file, protocol):
        """The kernel's, of a protocol: those of /proc/net/`file`."""
        names, values = [line.split()[1:] for line in
                         run(*self.prefix("cat", f"/proc/net/{file}")).splitlines()
                         if line.startswith(f"{protocol}:")]
        return dict(zip(names, map(int, values)))

    def resets(self):
        """Open connections that somebody has reset. (OutRsts would count answers to late copies of
        what belongs to a connection that has ended as well; a slow guest sends such.)"""
        return self.counters("snmp", "Tcp")["EstabResets"]

    def from_the_past(self):
        """Segments of open connections that were thrown away because their timestamp was older than
        one seen before (PAWS, RFC 7323)."""
        return self.counters("netstat", "TcpExt")["PAWSEstab"]

    def close(self):
        # The namespace ends some time later.
        subprocess.run(["ip", "link", "del", self.link], capture_output=True)
        subprocess.run(["ip", "netns", "del", self.namespace], capture_output=True)


def route_between():
    """Lets this process's namespace be the router."""
    with open("/proc/sys/net/ipv4/ip_forward", "w") as switch:
        switch.write("1")
