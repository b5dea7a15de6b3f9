#!/usr/bin/env python3
"""A mount of what is on this machine, against the same file on the file system below.

Payloads of the local repository, cold and warm, from end to end and at random, read and mapped;
then a remote payload that an earlier mount has read, with that mount's daemon gone and the page
cache dropped.
"""

import argparse

from common import BINARY, alternate, environment, large_file, need, report, run, shown, start, workdir
from reads import cold, mapped, mapped_scattered, offsets, scattered, sequential, warm
from stand import commit, far, mounted, payload_requests, payloads, static_server


def fresh_mount(work, env, flags, how, *args):
    """A subject: reads the file in a mount of its own, with a daemon of its own."""

    def subject():
        with mounted("bench/tree", work / "mount", env, *flags):
            return how(*args[:1], work / "mount" / "large", *args[1:])()

    return subject


def ways(size, args):
    """Name, cold or warm, the read, its other arguments, and how often at a stretch."""
    few, many = offsets(size, args.cold_reads), offsets(size, args.warm_reads)
    return [
        ("read from end to end, cold", cold, sequential, (), 1),
        ("read from end to end, warm", warm, sequential, (), 4),
        (f"{len(few)} x 4 KiB at random, read, cold", cold, scattered, (few,), 1),
        (f"{len(many)} x 4 KiB at random, read, warm", warm, scattered, (many,), 4),
        ("mapped from end to end, cold", cold, mapped, (), 1),
        ("mapped from end to end, warm", warm, mapped, (), 4),
        (f"{len(few)} x 4 KiB at random, mapped, cold", cold, mapped_scattered, (few,), 1),
        (f"{len(many)} x 4 KiB at random, mapped, warm", warm, mapped_scattered, (many,), 4),
    ]


def compare(below, work, env, flags, chosen, rounds):
    """For each way its name, and the seconds below and in the mount."""
    for name, state, read, rest, times in chosen:
        extra = {"times": times} if state is warm else {}

        def how(read, path, *rest, state=state, extra=extra):
            return state(read, path, *rest, **extra)

        seconds = alternate(rounds, below=how(read, below, *rest),
                            mount=fresh_mount(work, env, flags, how, read, *rest))
        yield name, seconds["below"] / times, seconds["mount"] / times


def table(title, compared, wanted, more=None):
    rows = {}
    for name, below, mount in compared:
        rows[name] = (below / mount, wanted, f"{shown(below)} s below, {shown(mount)} s in the mount")
    report(title, rows | (more or {}))


def local_payload(work, args, size):
    env = environment(work / "home")
    large_file(work / "tree" / "large", size)
    run([BINARY, "init"], env)
    run([BINARY, "commit", work / "tree", "--tag", "bench/tree"], env)
    run(["rm", "-r", work / "tree"])
    (below,) = (p for p in work.glob("home/**/payloads/??/*") if p.stat().st_size == size)
    compared = compare(below, work, env, args.flag, ways(size, args), args.rounds)
    table(f"local payload of {size >> 20} MiB, speed / speed of the file below", compared, ">= 0.95")


def cached_payload(work, args, size):
    env = environment(work / "home")
    large_file(work / "tree" / "large", size)
    repository = commit(work, work / "tree", env)
    run(["rm", "-r", work / "tree"])
    below = max(payloads(repository), key=lambda f: f.stat().st_size)
    chosen = [way for way in ways(size, args) if way[1] is cold]
    with static_server(work, repository, env) as (port, log):
        modes = {"kept in the disk tier": far(port), "promoted": ("--remote", f"http://127.0.0.1:{port}")}
        for name, flags in modes.items():
            home = environment(work / name.split()[0])
            run([BINARY, "init"], home)
            with mounted("bench/tree", work / "mount", home, *flags, *args.flag):
                sequential(work / "mount" / "large")
            before = payload_requests(log)
            compared = list(compare(below, work, home, (*flags, *args.flag), chosen, args.rounds))
            again = (payload_requests(log) - before, "<= 0") if log else "unknown"
            table(f"remote payload of {size >> 20} MiB, {name}, after a restart, speed / speed of a file", compared, ">= 0.8",
                  {"requests for payloads after the restart": again})


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["local", "cached"], nargs="*", default=["local", "cached"])
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--cold-reads", type=int, default=2000)
    parser.add_argument("--warm-reads", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--flag", action="append", default=[], help="passed to farseek mount, as --flag=--threads=4")
    args = parser.parse_args()
    need(BINARY)
    for name, measure in (("local", local_payload), ("cached", cached_payload)):
        if name in args.only:
            with workdir() as work:
                measure(work, args, args.mib << 20)


if __name__ == "__main__":
    start(main)
