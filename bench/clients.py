"""Plain HTTP clients, as references: what the network and the server give to whoever just asks."""

import socket
import subprocess
import threading


class Client:
    """GETs over one kept connection, without any comfort that would cost time."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), 60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray(1 << 20)
        self.view = memoryview(self.buffer)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def get(self, path, start=None, end=None):
        """Fetches the bytes from `start` to before `end`, or all, and drops them; returns their number."""
        wanted = "" if start is None else f"Range: bytes={start}-{end - 1}\r\n"
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{wanted}\r\n".encode())
        have = 0
        while (at := self.buffer.find(b"\r\n\r\n", 0, have)) < 0:
            count = self.socket.recv_into(self.view[have:])
            if not count:
                raise ConnectionError(f"{path}: the server hung up")
            have += count
        head = bytes(self.view[:at]).decode().split("\r\n")
        if head[0].split()[1] != ("200" if start is None else "206"):
            raise ConnectionError(f"{path}: {head[0]}")
        length = next(int(l.split(":")[1]) for l in head if l.lower().startswith("content-length:"))
        missing = length - (have - at - 4)
        while missing:
            count = self.socket.recv_into(self.view[: min(missing, len(self.view))])
            if not count:
                raise ConnectionError(f"{path}: cut off {missing} bytes before its end")
            missing -= count
        return length


def parts(size, count):
    edges = [size * i // count for i in range(count + 1)]
    return list(zip(edges, edges[1:]))


def by_threads(port, path, size, connections):
    """Downloads by threads, each with one connection and one contiguous part."""
    failed = []

    def part(start, end):
        try:
            with Client(port) as client:
                client.get(path, start, end)
        except OSError as error:
            failed.append(error)

    threads = [threading.Thread(target=part, args=edges) for edges in parts(size, connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def by_curl(port, path, size, connections):
    """The same by processes of curl."""
    command = ["curl", "--silent", "--fail", "--output", "/dev/null", f"http://127.0.0.1:{port}{path}"]
    running = [subprocess.Popen([*command, "--range", f"{start}-{end - 1}"]) for start, end in parts(size, connections)]
    if any([process.wait() for process in running]):
        raise ConnectionError(f"{path}: curl failed")
