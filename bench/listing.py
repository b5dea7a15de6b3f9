#!/usr/bin/env python3
"""First `ls -R` after mounting 20,000 and 500,000 entries, against the same tree on disk, and the
daemon's resident memory per entry."""

import argparse
import time

from common import BINARY, drop_page_cache, environment, need, report, run, start, timed, workdir
from stand import commit, far, mounted, resident_bytes, served


def tree(directory, entries):
    """Directories of 500 empty files: entries are what is measured, not payloads."""
    made = 0
    while made < entries:
        parent = directory / f"directory-{made // 500:05}"
        parent.mkdir(parents=True)
        for i in range(min(499, entries - made - 1)):
            (parent / f"file-{i:05}.py").touch()
        made += 500


def measure(work, entries):
    env = environment(work / "home")
    source, mountpoint = work / "tree", work / "mount"
    tree(source, entries)
    repository = commit(work, source, env)
    drop_page_cache()
    on_disk = timed(lambda: run(["ls", "-R", source]))
    on_disk_long = timed(lambda: run(["ls", "-lR", source]))
    with served(repository, env) as port:
        started = time.perf_counter()
        with mounted("bench/tree", mountpoint, env, *far(port)) as daemon:
            mount = time.perf_counter() - started
            first = timed(lambda: run(["ls", "-R", mountpoint]))
            long = timed(lambda: run(["ls", "-lR", mountpoint]))
            resident = resident_bytes(daemon.pid)
    report(f"{entries} entries", {
        "until the mount answers, s": mount,
        "first ls -R in the mount, s": first,
        "ls -lR in the mount after it, s": long,
        "first ls -R on disk (cold), s": on_disk,
        "ls -lR on disk after it, s": on_disk_long,
        "first ls -R / on disk": first / on_disk,
        "(mount + first ls -R) / on disk": (mount + first) / on_disk,
        "resident bytes per entry": resident / entries,
    })


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, nargs="*", default=[20_000, 500_000])
    args = parser.parse_args()
    need(BINARY)
    for entries in args.entries:
        with workdir() as work:
            measure(work, entries)


if __name__ == "__main__":
    start(main)
