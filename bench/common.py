"""What the benchmarks share: rounds in alternation, figures with what is wanted of them, cleaning up.

Every figure that counts is a ratio against a reference taken in the same run: each round runs the
reference and the subject in turn, and the medians are compared.
"""

import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
RELEASE = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
BINARY = pathlib.Path(os.environ.get("FARSEEK", RELEASE / "farseek"))
DELAY_PROXY = pathlib.Path(os.environ.get("DELAY_PROXY", BINARY.parent / "delay-proxy"))


def start(main):
    """Runs a benchmark such that an interrupt ends it in order, once: nothing stays behind."""

    def interrupted(number, _frame):
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)
        sys.exit(128 + number)

    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, interrupted)
    main()


def need(*programs):
    for program in programs:
        if not program.exists():
            sys.exit(f"{program} is not there: bench/run builds it, or set FARSEEK and DELAY_PROXY")


@contextlib.contextmanager
def workdir():
    """A temporary directory on a disk (BENCH_DIR, else /var/tmp), removed after."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="farseek-bench-", dir=os.environ.get("BENCH_DIR", "/var/tmp")))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def environment(home):
    """An environment in which no configuration of the user is read, and nothing of the user's is written."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SPFS_", "FARSEEK_", "AWS_", "RCLONE_"))}
    env.update(HOME=str(home), XDG_RUNTIME_DIR=str(home / "run"))
    for name in ("CONFIG", "CACHE", "DATA", "STATE"):
        env[f"XDG_{name}_HOME"] = str(home / name.lower())
    (home / "run").mkdir(parents=True, exist_ok=True)
    return env


def run(command, env=None, **kwargs):
    return subprocess.run([str(c) for c in command], check=True, env=env, stdout=subprocess.PIPE, **kwargs).stdout


def timed(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def alternate(rounds, **subjects):
    """Runs each subject `rounds` times in turn, every other round backwards; the medians of their seconds.

    A subject returns its seconds itself where making ready for it is not to be timed.
    """
    times = {name: [] for name in subjects}
    for i in range(rounds):
        order = list(subjects.items())
        for name, work in order if i % 2 == 0 else reversed(order):
            started = time.perf_counter()
            seconds = work()
            times[name].append(time.perf_counter() - started if seconds is None else seconds)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def drop_page_cache():
    run(["sync"])
    try:
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError as error:
        sys.exit(f"a cold figure needs the right to drop the page cache: {error}")


def large_file(path, size, seed=2):
    """`size` random bytes, a whole number of MiB."""
    source = random.Random(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as f:
        for _ in range(size >> 20):
            f.write(source.randbytes(1 << 20))


def small_files(directory, count):
    """`count` files of 1 to 16 KiB of random bytes, a hundred to a directory."""
    source = random.Random(1)
    for i in range(count):
        parent = directory / f"{i // 100:04}"
        parent.mkdir(parents=True, exist_ok=True)
        (parent / f"{i:06}").write_bytes(source.randbytes(source.randrange(1024, 16384)))


def is_met(value, wanted):
    """`wanted` is like "<= 1.3"."""
    sign, limit = wanted.split()
    return value <= float(limit) if sign == "<=" else value >= float(limit)


def shown(value):
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def report(title, rows):
    """Prints figures for a person, and as one line of JSON for `bench/run`.

    A row is a name with a value, or with a value, what is wanted of it ("" is nothing), and
    perhaps what it came from.
    """
    print(f"\n{title}")
    plain = []
    for name, row in rows.items():
        value, wanted, source = (*row, "", "")[:3] if isinstance(row, tuple) else (row, "", "")
        verdict = "" if not wanted else "met" if is_met(value, wanted) else "MISSED"
        plain.append({"name": name, "value": shown(value), "wanted": wanted, "verdict": verdict, "from": source})
        print(f"  {name:<58} {shown(value):>8}  {wanted:<7} {verdict:<6} {source}".rstrip())
    print(json.dumps({"title": title, "rows": plain}), flush=True)
