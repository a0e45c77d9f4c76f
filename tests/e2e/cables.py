"""A guest's end of a cable to `ivmm switch` (net/cable.h, net/ring.h)."""

import mmap
import os
import select
import socket
import struct

RING = 2 << 20
STATE = 4096
TAKEN_BACK = 1 << 31
MAGIC, VERSION = 0x4D564942, 1
HELLO, WELCOME = 1, 2
NO_OFFLOADS = bytes(12)  # a virtio-net header that asks for nothing


class Ring:
    """One direction."""

    def __init__(self, memory, base):
        self.memory, self.base, self.position = memory, base, 0
        # Each is read and written as a whole, which struct with a byte order does not do.
        self.words = memoryview(memory)[base:base + STATE].cast("I")

    def word(self, offset):
        return self.words[offset // 4]

    def set_word(self, offset, value):
        self.words[offset // 4] = value & 0xFFFFFFFF

    def room(self):
        return RING - (self.position - self.word(64)) % (1 << 32)

    def push(self, frame, vnet):
        need = (16 + len(frame) + 15) & ~15
        at = self.position % RING
        if at + need > RING:
            struct.pack_into("<I", self.memory, self.base + STATE + at, 0xFFFFFFFF)
            self.position += RING - at
            at = 0
        start = self.base + STATE + at
        struct.pack_into("<I12s", self.memory, start, len(frame), vnet)
        self.memory[start + 16:start + 16 + len(frame)] = frame
        self.position += need
        self.set_word(0, self.position)

    def pop(self):
        """(frame, virtio-net header), or None."""
        while self.word(0) != self.position & 0xFFFFFFFF:
            start = self.base + STATE + self.position % RING
            length, vnet = struct.unpack_from("<I12s", self.memory, start)
            if length == 0xFFFFFFFF:
                self.position += RING - self.position % RING
                continue
            taken_back, length = length & TAKEN_BACK, length & ~TAKEN_BACK
            frame = bytes(self.memory[start + 16:start + 16 + length])
            self.position += (16 + length + 15) & ~15
            self.set_word(64, self.position)
            if not taken_back:
                return frame, vnet
        return None


class Cable:
    """Connects to a port of a switch. The switch ends the cable with its socket."""

    def __init__(self, path, port, mac):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.connect(path)
        self.socket.send(struct.pack("<IHHI6s2x64s176s", MAGIC, VERSION, HELLO, 0,
                                     bytes.fromhex(mac.replace(":", "")), port.encode(), b""))
        data, fds, _, _ = socket.recv_fds(self.socket, 260, 3)
        if struct.unpack_from("<H", data, 6)[0] != WELCOME:
            self.socket.close()
            raise ConnectionRefusedError(data[84:].rstrip(b"\0").decode())
        self.memory = mmap.mmap(fds[0], 2 * (STATE + RING))
        os.close(fds[0])
        self.wakes_switch, self.wakes_us = fds[1:]
        self.out, self.into = Ring(self.memory, 0), Ring(self.memory, STATE + RING)

    def wake_switch(self):
        os.write(self.wakes_switch, struct.pack("Q", 1))

    def send(self, frame, vnet=NO_OFFLOADS):
        self.out.push(frame, vnet)
        self.wake_switch()

    def receive(self):
        return self.into.pop()

    def wait(self, seconds, *others):
        """Until something may have come here, or at another descriptor."""
        self.into.set_word(128, 1)
        select.select([self.wakes_us, *others], [], [], seconds)
        try:
            os.read(self.wakes_us, 8)
        except BlockingIOError:
            pass

    def close(self):
        if self.memory.closed:
            return
        self.socket.close()
        os.close(self.wakes_switch)
        os.close(self.wakes_us)
        for ring in (self.out, self.into):
            ring.words.release()
        self.memory.close()
