#!/usr/bin/env python3
"""Clean of a repository of 1,000,000 objects and as many payloads, a tenth of which nothing needs, and
of one of which nothing needs 99 of 100.

The reference is `find -type f | wc -l` of the same directory. Blob objects and payloads are names of
a few files (crates/testkit/examples/many_objects.rs says how), so that making them takes a minute.
What is said goes to a file and is read by another process: a child's peak memory begins with that of
its parent, which has to stay small.
"""

import argparse
import os
import shutil
import subprocess
import sys

from common import BINARY, alternate, environment, need, report, run, start, timed, workdir

GENERATOR = BINARY.parent / "examples" / "many_objects"


# Says how many objects and payloads a report of `clean --json` names.
COUNT = "import json, sys; r = json.load(open(sys.argv[1])); print(len(r['objects']), len(r['payloads']))"


def peak(command, env, said):
    """Seconds and peak resident MiB of a command, which says what it does into the file `said`."""
    output = []

    def work():
        with open(said, "wb") as stdout:
            process = subprocess.Popen([str(c) for c in command], env=env, stdout=stdout)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            sys.exit(f"{command} ended with {process.returncode}")
        output.append(usage.ru_maxrss / 1024)

    seconds = timed(work)
    return seconds, output[0]


def clean(args, untagged, env, work):
    """The figures of a repository of whose manifests no tag leads to so many."""
    repository, said = work / f"repository-{untagged}", work / "said"
    run([GENERATOR, repository, args.manifests, args.entries, untagged])
    doomed = f"{untagged * (args.entries + 2)} {untagged * args.entries}"
    most = []

    def find():
        run(["sh", "-c", f"find {repository} -type f | wc -l"])

    def plan():
        seconds, memory = peak([BINARY, "clean", "--dry-run", "--json", "--remote", repository], env, said)
        counted = run([sys.executable, "-c", COUNT, said]).decode().strip()
        assert counted == doomed, counted
        most.append(memory)
        return seconds

    find()
    seconds = alternate(args.rounds, find=find, plan=plan)
    took, memory = peak([BINARY, "clean", "--yes", "--json", "--remote", repository], env, said)
    gone = untagged * (2 * args.entries + 2)
    left = int(run(["sh", "-c", f"find {repository} -type f | wc -l"]))
    assert left == args.manifests * (2 * args.entries + 3) - gone - untagged, left
    shutil.rmtree(repository)
    objects, payloads = args.manifests * (args.entries + 2), args.manifests * args.entries
    report(f"clean of {objects} objects and {payloads} payloads, {untagged} of {args.manifests} parts of which nothing needs", {
        "find -type f | wc -l, s": seconds["find"],
        "farseek clean --dry-run, s": seconds["plan"],
        "dry run / find": seconds["plan"] / seconds["find"],
        "its peak memory, MiB": (max(most), "<= 300"),
        f"farseek clean --yes, of which {gone} files go, s": took,
        "its peak memory, MiB ": (memory, "<= 300"),
    })


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--manifests", type=int, default=100, help="each with ENTRIES blobs")
    parser.add_argument("--entries", type=int, default=9_998)
    parser.add_argument(
        "--untagged", type=int, nargs="+", default=[10, 99],
        help="manifests that no tag leads to; one repository after the other",
    )
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    need(BINARY, GENERATOR)
    with workdir() as work:
        env = environment(work / "home")
        for untagged in args.untagged:
            clean(args, untagged, env, work)


if __name__ == "__main__":
    start(main)
