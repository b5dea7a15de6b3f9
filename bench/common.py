"""What the benchmarks share: timing in alternation, the release binary, mounts that go away.

Every figure is a ratio against a reference taken in the same run: each round runs the reference
and the subject once, in turn, and the medians are compared.
"""

import contextlib
import json
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BINARY = pathlib.Path(os.environ.get("FARSEEK", ROOT / "target/release/farseek"))


def need_binary():
    if not BINARY.exists():
        sys.exit(f"{BINARY} is not there: run `cargo build --release` first, or set FARSEEK")


@contextlib.contextmanager
def workdir():
    """A temporary directory on the file system of the checkout (not a tmpfs), removed after."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="farseek-bench-", dir=os.environ.get("BENCH_DIR", "/var/tmp")))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def environment(home):
    """An environment in which no configuration of the user is read."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SPFS_", "FARSEEK_"))}
    env.update(HOME=str(home), XDG_CONFIG_HOME=str(home / "config"), XDG_CACHE_HOME=str(home / "cache"))
    return env


def run(command, env=None, **kwargs):
    return subprocess.run([str(c) for c in command], check=True, env=env, stdout=subprocess.PIPE, **kwargs).stdout


def timed(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def alternate(rounds, **subjects):
    """Runs each subject `rounds` times in turn; returns the median seconds of each."""
    times = {name: [] for name in subjects}
    for _ in range(rounds):
        for name, work in subjects.items():
            times[name].append(timed(work))
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def drop_page_cache():
    run(["sync"])
    with contextlib.suppress(PermissionError):
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def served(repository, env):
    """`farseek serve` of a repository on loopback; yields its URL."""
    port = free_port()
    command = [str(BINARY), "serve", f"127.0.0.1:{port}", "--remote", str(repository)]
    server = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.02)
        else:
            sys.exit("farseek serve did not start")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(10)


@contextlib.contextmanager
def mounted(reference, mountpoint, remote, env, *flags):
    """A mount in the background; yields the pid of its daemon."""
    mountpoint.mkdir(exist_ok=True)
    command = [str(BINARY), "mount", reference, str(mountpoint), "--no-local", "--remote", remote, "--foreground", *flags]
    daemon = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
    try:
        for _ in range(3000):
            if os.path.ismount(mountpoint):
                break
            if daemon.poll() is not None:
                sys.exit(f"farseek mount ended with {daemon.returncode}")
            time.sleep(0.01)
        yield daemon.pid
    finally:
        subprocess.run([str(BINARY), "unmount", str(mountpoint)], env=env, stdout=subprocess.DEVNULL)
        daemon.wait(20)


def resident_bytes(pid):
    """Resident memory of a process that is its own (not file pages shared with others)."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


def report(title, rows):
    """Prints figures for a person and, on the last line, as JSON."""
    print(f"\n{title}")
    for name, value in rows.items():
        print(f"  {name:<44} {value:.3f}" if isinstance(value, float) else f"  {name:<44} {value}")
    print(json.dumps({title: rows}))
