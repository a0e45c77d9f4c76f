"""Sockets on which each line is a JSON object: those of ivmm's guests, and QEMU's monitor."""

import base64
import json
import socket
import time

from .errors import Failure

PATIENCE = 30  # seconds that an answer may take, when nothing else is said


class JsonLines:
    """A connection. Use as a context manager."""

    def __init__(self, path, patience=PATIENCE):
        self.path = path
        self._rest = b""
        self._socket = self._connect(time.monotonic() + patience)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()

    def _connect(self, deadline):
        """Whoever listens may just have been started."""
        while True:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(self.path)
                return connection
            except (FileNotFoundError, ConnectionRefusedError) as error:
                connection.close()
                if time.monotonic() >= deadline:
                    raise Failure(f"nobody answers at {self.path}") from error
            time.sleep(0.002)

    def send(self, message):
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise Failure(f"{self.path}: {error.strerror}") from error

    def receive(self, deadline):
        """The next object; None when the other side has closed the connection."""
        while b"\n" not in self._rest:
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                data = self._socket.recv(65536)
            except TimeoutError as error:
                raise Failure(f"{self.path} does not answer in time") from error
            except OSError:
                data = b""
            if not data:
                return None
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return json.loads(line)


class Control(JsonLines):
    """docs/control-socket.md"""

    def __init__(self, path):
        super().__init__(path)
        self._calls = 0

    def call(self, method, timeout=PATIENCE, **params):
        self._calls += 1
        self.send({"jsonrpc": "2.0", "id": self._calls, "method": method, "params": params})
        deadline = time.monotonic() + timeout
        while (answer := self.receive(deadline)) is not None:
            if answer.get("id") == self._calls:
                if "error" in answer:
                    raise Failure(f"{method}: {answer['error']['message']}")
                return answer["result"]
        raise Failure(f"{self.path}: the guest has ended instead of answering {method}")

    def wait_for_console(self, text, timeout):
        """Until the guest has printed `text`, now or before."""
        self.call("console")
        deadline, printed = time.monotonic() + timeout, b""
        while text.encode() not in printed:
            message = self.receive(deadline)
            if message is None:
                raise Failure(f"{self.path}: the guest has ended before it printed {text!r}")
            if message.get("method") == "console.output":
                printed += base64.b64decode(message["params"]["data"])

    def stop_guest(self, timeout=PATIENCE):
        """Ends the guest; when this returns, it has released all it had."""
        self.call("stop")
        deadline = time.monotonic() + timeout
        while self.receive(deadline) is not None:
            pass


class Qmp(JsonLines):
    """QEMU's monitor."""

    def __init__(self, path):
        super().__init__(path)
        self.receive(time.monotonic() + PATIENCE)  # the greeting
        self.call("qmp_capabilities")

    def call(self, command, **arguments):
        self.send({"execute": command, "arguments": arguments})
        deadline = time.monotonic() + PATIENCE
        while (answer := self.receive(deadline)) is not None:
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise Failure(f"QEMU's {command}: {answer['error']['desc']}")
        raise Failure(f"QEMU has ended instead of answering {command}")
