"""Machines on the Internet: network namespaces behind a router, from where a guest is used."""

import os
import subprocess


def run(*command):
    return subprocess.run([*map(str, command)], check=True, capture_output=True, text=True).stdout


class Peer:
    """A machine with one address, which reaches the guests through this process's namespace."""

    def __init__(self, name, network):
        """`network`: the first three bytes of its addresses; its own ends with 2."""
        self.address = f"{network}.2"
        self.namespace = f"ivmm{os.getpid()}{name}"
        link = f"{name}-{os.getpid()}"[:15]
        run("ip", "netns", "add", self.namespace)
        try:
            run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns",
                self.namespace)
            run("ip", "address", "add", f"{network}.1/24", "dev", link)
            run("ip", "link", "set", link, "up")
            for command in (f"address add {self.address}/24 dev eth0", "link set lo up",
                            "link set eth0 up", f"route add default via {network}.1"):
                run("ip", "-n", self.namespace, *command.split())
        except BaseException:
            self.close()
            raise

    def prefix(self, *command):
        """The command as this machine runs it."""
        return ["ip", "netns", "exec", self.namespace, *map(str, command)]

    def tcp(self):
        """The kernel's counters of its TCP."""
        names, values = [line.split()[1:] for line in
                         run(*self.prefix("cat", "/proc/net/snmp")).splitlines()
                         if line.startswith("Tcp:")]
        return dict(zip(names, map(int, values)))

    def resets(self):
        """Connections that somebody has reset."""
        counters = self.tcp()
        return counters["OutRsts"] + counters["EstabResets"]

    def close(self):
        subprocess.run(["ip", "netns", "del", self.namespace], capture_output=True)


def route_between():
    """Lets this process's namespace be the router."""
    with open("/proc/sys/net/ipv4/ip_forward", "w") as switch:
        switch.write("1")
