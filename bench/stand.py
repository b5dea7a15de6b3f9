"""What a benchmark stands up around itself: servers, the delay proxy, mounts. All of it goes away.

Children live in sessions of their own, so that an interrupt at the terminal reaches only the
benchmark, which then takes them down in order.
"""

import contextlib
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time

from common import BINARY, DELAY_PROXY, run

BUCKET_SERVER = pathlib.Path(os.environ.get("BUCKET_SERVER", DELAY_PROXY.parent / "bucket-server"))

# Debian puts it where only the superuser looks.
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
SERVER = "nginx" if NGINX else "farseek serve"


@contextlib.contextmanager
def child(command, **kwargs):
    """A process that has ended when the block is left."""
    process = subprocess.Popen([str(c) for c in command], start_new_session=True, **kwargs)
    try:
        yield process
    finally:
        end(process)


def end(process):
    for stop in (process.terminate, process.kill):
        if process.poll() is None:
            stop()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
            break
    if process.stdout:
        process.stdout.close()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def until(what, holds, process):
    for _ in range(3000):
        if holds():
            return
        if process.poll() is not None:
            sys.exit(f"{what} ended with {process.returncode}")
        time.sleep(0.01)
    sys.exit(f"{what} did not start")


def answers(port):
    def holds():
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    return holds


@contextlib.contextmanager
def served(repository, env):
    """`farseek serve` of a repository on loopback; yields its port."""
    port = free_port()
    command = [BINARY, "serve", f"127.0.0.1:{port}", "--remote", repository]
    with child(command, env=env, stdout=subprocess.DEVNULL) as server:
        until("farseek serve", answers(port), server)
        yield port


@contextlib.contextmanager
def static_server(work, repository, env):
    """A web server over the directory of a repository: nginx, or ours; yields its port and its log, if any."""
    if not NGINX:
        with served(repository, env) as port:
            yield port, None
        return
    directory = work / "nginx"
    directory.mkdir()
    port, log, config = free_port(), directory / "access.log", directory / "nginx.conf"
    spaces = "".join(f"{n}_temp_path {directory}/{n};" for n in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    user = "user root;" if os.geteuid() == 0 else ""
    config.write_text(f"""{user} daemon off; worker_processes 2; pid {directory}/pid; error_log {directory}/error.log;
        events {{ worker_connections 512; }}
        http {{ {spaces} log_format short '$request_method $uri $body_bytes_sent'; access_log {log} short;
            sendfile on; tcp_nopush on; keepalive_requests 100000000; keepalive_timeout 600;
            default_type application/octet-stream;
            server {{ listen 127.0.0.1:{port} backlog=512; root "{repository}"; }} }}""")
    command = [NGINX, "-e", directory / "error.log", "-p", directory, "-c", config]
    try:
        with child(command, stdout=subprocess.DEVNULL) as server:
            until("nginx", answers(port), server)
            yield port, log
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def farseek_server(repository, env):
    """`farseek server` of a repository on loopback; yields its address, the port of payloads and its process."""
    command = [BINARY, "server", "127.0.0.1:0", "127.0.0.1:0", "--remote", repository, "--json"]
    with child(command, env=env, stdout=subprocess.PIPE) as server:
        line = server.stdout.readline()
        if not line:
            sys.exit("farseek server did not start")
        started = json.loads(line)
        yield started["grpc"], int(started["http"].rsplit(":", 1)[1]), server


@contextlib.contextmanager
def bucket_server(work):
    """A bucket on loopback, kept in `served` below `work`; yields the variables of its clients, its port and the log
    of its requests."""
    log = work / "served" / "requests.log"
    command = [BUCKET_SERVER, work / "served", "127.0.0.1:0", log]
    with child(command, stdout=subprocess.PIPE) as server:
        lines = [server.stdout.readline().decode().strip() for _ in range(5)]
        if not lines[-1]:
            sys.exit("the bucket did not start")
        variables = dict(line.split("=", 1) for line in lines)
        until("the bucket's log", log.exists, server)
        yield variables, int(variables["AWS_ENDPOINT_URL"].rsplit(":", 1)[1]), log


@contextlib.contextmanager
def rsync_daemon(work, tree):
    """rsync's own server over a tree, on loopback; yields the URL of the tree."""
    port, config = free_port(), work / "rsyncd.conf"
    as_root = "uid = root\ngid = root\n" if os.geteuid() == 0 else ""
    config.write_text(f"use chroot = no\n{as_root}[tree]\npath = {tree}\n")
    address = ["--address", "127.0.0.1", "--port", port]
    with child(["rsync", "--daemon", "--no-detach", "--config", config, *address], stdout=subprocess.DEVNULL) as daemon:
        until("rsync --daemon", answers(port), daemon)
        yield f"rsync://127.0.0.1:{port}/tree/"


@contextlib.contextmanager
def delayed(port, milliseconds, bytes_per_second=None):
    """The delay proxy before a port; yields its own port."""
    command = [DELAY_PROXY, f"127.0.0.1:{port}", str(milliseconds)]
    if bytes_per_second:
        command += ["127.0.0.1:0", str(bytes_per_second)]
    with child(command, stdout=subprocess.PIPE) as proxy:
        line = proxy.stdout.readline().decode()
        if not line:
            sys.exit("the delay proxy did not start")
        yield int(line.rsplit(":", 1)[1])


@contextlib.contextmanager
def mounted(reference, mountpoint, env, *flags):
    """A mount; yields its daemon's process. The daemon has ended when the block is left."""
    mountpoint.mkdir(exist_ok=True)
    command = [BINARY, "mount", reference, mountpoint, "--foreground", *flags]
    with child(command, env=env, stdout=subprocess.DEVNULL) as daemon:
        try:
            until("farseek mount", lambda: os.path.ismount(mountpoint), daemon)
            yield daemon
        finally:
            unmount(mountpoint, env)
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(20)


def unmount(mountpoint, env):
    if not os.path.ismount(mountpoint):
        return
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run([BINARY, "unmount", mountpoint], env=env, timeout=30, **quiet)
    if os.path.ismount(mountpoint):
        subprocess.run(["umount", "-l", mountpoint], timeout=30, **quiet)


def far(port, *flags):
    """Flags of a mount that reads from a port alone."""
    return ("--no-local", "--remote", f"http://127.0.0.1:{port}", *flags)


def commit(work, tree, env, repository=None):
    """Commits a tree to a new repository; returns its directory."""
    repository = repository or work / "repository"
    run([BINARY, "init", "repo", repository], env)
    run([BINARY, "commit", tree, "--tag", "bench/tree", "--remote", repository], env)
    return repository


def payloads(repository):
    """Files of all payloads of a repository."""
    return sorted(f for f in (pathlib.Path(repository) / "payloads").glob("??/*") if f.is_file())


def payload_requests(log):
    """How often payloads have been asked for, by the log of the static server (0 where it keeps none)."""
    return log.read_text().count(" /payloads/") if log else 0


def resident_bytes(pid):
    """Resident memory of a process that is its own (not file pages shared with others)."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


def peak_bytes(pid):
    """The most resident memory that a process has had, file pages that it has mapped included."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
