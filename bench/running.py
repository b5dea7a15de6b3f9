#!/usr/bin/env python3
"""`farseek run REF -- true` on a warm host, in an environment of 50,000 entries, read-only and editable, and
what is spent where: the same command alone, a new mount namespace, a mount by itself."""

import argparse
import time

from common import BINARY, alternate, environment, need, report, run, start, timed, workdir
from listing import tree
from stand import commit, mounted


def measure(work, args):
    env = environment(work / "home")
    source, mountpoint = work / "tree", work / "mount"
    tree(source, args.entries)
    run([BINARY, "init", "repo"], env)
    run([BINARY, "commit", source, "--tag", "bench/tree"], env)
    # Its last process is gone before the runtime is: those before do not wait for it.
    command = [BINARY, "run", "bench/tree", "--no-edit", "--", "true"]
    run(command, env)

    def mount():
        started = time.perf_counter()
        with mounted("bench/tree", mountpoint, env):
            return time.perf_counter() - started

    def again(command):
        return lambda: timed(lambda: run(command, env))

    seconds = alternate(
        args.rounds,
        run=again(command),
        edit=again([BINARY, "run", "bench/tree", "--edit", "--", "true"]),
        mount=mount,
        unshare=again(["unshare", "--mount", "true"]),
        alone=again(["true"]),
    )
    report(f"run of a command, {args.entries} entries, milliseconds", {
        "farseek run REF -- true": (seconds["run"] * 1000, "<= 150"),
        "farseek run --edit REF -- true": (seconds["edit"] * 1000, "<= 150"),
        "farseek mount, until it answers": seconds["mount"] * 1000,
        "unshare --mount true": seconds["unshare"] * 1000,
        "true": seconds["alone"] * 1000,
    })


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=11)
    args = parser.parse_args()
    need(BINARY)
    with workdir() as work:
        measure(work, args)


if __name__ == "__main__":
    start(main)
