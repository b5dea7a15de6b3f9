#!/usr/bin/env python3
"""Clean of a repository of 1,000,000 objects and as many payloads, a tenth of which nothing needs.

The reference is `find -type f | wc -l` of the same directory. Blob objects and payloads are names of
a few files (crates/testkit/examples/many_objects.rs says how), so that making them takes a minute.
"""

import argparse
import json
import os
import subprocess
import sys

from common import BINARY, alternate, environment, need, report, run, start, timed, workdir

GENERATOR = BINARY.parent / "examples" / "many_objects"


def peak(command, env):
    """Seconds and peak resident MiB of a command, and what it printed."""
    output = []

    def work():
        process = subprocess.Popen([str(c) for c in command], env=env, stdout=subprocess.PIPE)
        output.append(process.stdout.read())
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            sys.exit(f"{command} ended with {process.returncode}")
        output.append(usage.ru_maxrss / 1024)

    seconds = timed(work)
    return seconds, output[1], output[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--manifests", type=int, default=100, help="each with ENTRIES blobs")
    parser.add_argument("--entries", type=int, default=9_998)
    parser.add_argument("--untagged", type=int, default=10, help="manifests that no tag leads to")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    need(BINARY, GENERATOR)
    with workdir() as work:
        env = environment(work / "home")
        repository = work / "repository"
        run([GENERATOR, repository, args.manifests, args.entries, args.untagged])
        objects = args.manifests * (args.entries + 2)
        most = []

        def find():
            run(["sh", "-c", f"find {repository} -type f | wc -l"])

        def plan():
            seconds, memory, said = peak([BINARY, "clean", "--dry-run", "--json", "--remote", repository], env)
            doomed = json.loads(said)
            assert len(doomed["objects"]) == args.untagged * (args.entries + 2), len(doomed["objects"])
            assert len(doomed["payloads"]) == args.untagged * args.entries, len(doomed["payloads"])
            most.append(memory)
            return seconds

        find()
        seconds = alternate(args.rounds, find=find, plan=plan)
        took, memory, _ = peak([BINARY, "clean", "--yes", "--json", "--remote", repository], env)
        gone = args.untagged * (2 * args.entries + 2)
        left = int(run(["sh", "-c", f"find {repository} -type f | wc -l"]))
        assert left == args.manifests * (2 * args.entries + 3) - gone - args.untagged, left
        report(f"clean of {objects} objects and {args.manifests * args.entries} payloads", {
            "find -type f | wc -l, s": seconds["find"],
            "farseek clean --dry-run, s": seconds["plan"],
            "dry run / find": seconds["plan"] / seconds["find"],
            "its peak memory, MiB": (max(most), "<= 300"),
            f"farseek clean --yes, of which {gone} files go, s": took,
            "its peak memory, MiB ": (memory, "<= 300"),
        })


if __name__ == "__main__":
    start(main)
