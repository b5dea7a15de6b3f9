#!/usr/bin/env python3
"""push and pull of 20,000 small files and of 2 GiB in one to a bucket on loopback, at 0 and 10 ms each way, against
`rclone copy` of the same directory: as it is, and with as many transfers at once as do it good.

The bucket is `s3s-fs` (crates/testkit, `bucket-server`), and one node of Garage where GARAGE names that program
or it is on the PATH. Every push goes to a prefix of its own. Ours comes from and goes to a repository and
hashes everything, and what it has pulled is on the disk; rclone's reference ends with a `sync` for that reason. Beside the
times stand the most memory that farseek has had and the requests of both, from the log of s3s-fs.
"""

import argparse
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import time

from common import BINARY, alternate, environment, large_file, need, report, run, small_files, start, workdir
from garage import BUCKET as GARAGE_BUCKET
from garage import GARAGE, cluster
from stand import BUCKET_SERVER, bucket_server, delayed

RCLONE = shutil.which("rclone")
MIB = 1 << 20
MEMORY_WANTED = "<= 200"
TUNED = ["--transfers", "32", "--checkers", "32", "--s3-upload-concurrency", "8"]
LOG_IS_LATE = 0.5  # seconds until the server's log has everything


class Store:
    """A bucket: its variables, and a log of requests where the server keeps one."""

    def __init__(self, bucket, variables, log=None):
        self.bucket, self.variables, self.log = bucket, variables, log

    def requests(self):
        """How many there have been."""
        if not self.log:
            return 0
        time.sleep(LOG_IS_LATE)
        return self.log.read_bytes().count(b"\n")

    def of_rclone(self):
        """The same for rclone. Its paths end in a slash: else it asks whether the prefix is a file, and s3s-fs,
        to which it is a directory, fails at that until rclone has asked ten times."""
        return {
            "RCLONE_CONFIG": "/dev/null",
            "RCLONE_S3_PROVIDER": "Other",
            "RCLONE_S3_ENDPOINT": self.variables["AWS_ENDPOINT_URL"],
            "RCLONE_S3_ACCESS_KEY_ID": self.variables["AWS_ACCESS_KEY_ID"],
            "RCLONE_S3_SECRET_ACCESS_KEY": self.variables["AWS_SECRET_ACCESS_KEY"],
            "RCLONE_S3_REGION": self.variables["AWS_REGION"],
            "RCLONE_S3_FORCE_PATH_STYLE": "true",
            "RCLONE_S3_NO_CHECK_BUCKET": "true",
        }


class Taken:
    """What one way has taken, over all rounds."""

    def __init__(self):
        self.peak, self.requests, self.counted = 0, 0, None


class Ways:
    """The ways to get a tree to the bucket and back. All give seconds."""

    def __init__(self, work, tree, store):
        self.work, self.tree, self.store = work, tree, store
        self.env = environment(work / "home") | store.variables
        self.here, self.copy = work / "here", work / "copy"
        self.numbers, self.taken = itertools.count(), {}
        run([BINARY, "init", "repo", self.here], self.env)
        run([BINARY, "commit", tree, "--tag", "bench/tree", "--remote", self.here], self.env)
        # What is pulled was pushed before anything was timed.
        self.full, self.plain = self.remote("full"), f":s3:{store.bucket}/plain/"
        run([BINARY, "push", "bench/tree", "--from", self.here, "--to", self.full], self.env)
        if RCLONE:
            self.rclone_copy(tree, self.plain, TUNED)

    def remote(self, prefix):
        return f"s3://{self.store.bucket}/{prefix}"

    def watched(self, name, command, env, *then):
        """Seconds of a command and of what follows it; its memory and requests are noted. What others have
        written is on the disk before."""
        run(["sync", "-f", self.work])
        before = self.store.requests()
        began = time.perf_counter()
        process = subprocess.Popen([str(c) for c in command], env=env, stdout=subprocess.PIPE)
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            sys.exit(f"{' '.join(map(str, command))} ended with {process.returncode}")
        for more in then:
            run(more)
        seconds = time.perf_counter() - began
        taken = self.taken.setdefault(name, Taken())
        taken.peak = max(taken.peak, usage.ru_maxrss << 10)
        taken.requests = self.store.requests() - before
        if name in ("push", "pull"):
            taken.counted = requests_of(json.loads(said))
        return seconds

    def push(self):
        to = self.remote(f"push-{next(self.numbers)}")
        command = [BINARY, "push", "bench/tree", "--from", self.here, "--to", to, "--json"]
        return self.watched("push", command, self.env)

    def pull(self):
        run([BINARY, "init", "repo", self.copy], self.env)
        command = [BINARY, "pull", "bench/tree", "--from", self.full, "--to", self.copy, "--json"]
        seconds = self.watched("pull", command, self.env)
        self.clear()
        return seconds

    def clear(self):
        shutil.rmtree(self.copy)
        run(["sync", "-f", self.work])

    def rclone_command(self, source, destination, flags):
        return [RCLONE, "copy", *flags, source, destination]

    def rclone_copy(self, source, destination, flags):
        env = self.env | self.store.of_rclone()
        run(self.rclone_command(source, destination, flags), env)

    def rclone_push(self, name, flags):
        to = f":s3:{self.store.bucket}/plain-{next(self.numbers)}/"
        return self.watched(name, self.rclone_command(self.tree, to, flags), self.env | self.store.of_rclone())

    def rclone_pull(self, name, flags):
        command = self.rclone_command(self.plain, self.copy, flags)
        seconds = self.watched(name, command, self.env | self.store.of_rclone(), ["sync", "-f", self.work])
        self.clear()
        return seconds


def requests_of(said):
    """The requests that farseek says it has made; `None` of a version that does not count."""
    return said.get("requests", {}).get("total")


def subjects(ways):
    found = {"push": ways.push, "pull": ways.pull}
    for kind, flags in (("rclone copy", []), ("rclone copy, 32 at once", TUNED)) if RCLONE else ():
        up, down = f"{kind} up", f"{kind} down"
        found[up] = lambda up=up, flags=flags: ways.rclone_push(up, flags)
        found[down] = lambda down=down, flags=flags: ways.rclone_pull(down, flags)
    return found


def compare(work, tree, store, files, rounds, title, wanted):
    ways = Ways(work, tree, store)
    seconds = alternate(rounds, **subjects(ways))
    rows = {f"{way}, s": taken for way, taken in seconds.items()}
    for ours, direction in (("push", "up"), ("pull", "down")):
        for kind, target in (("rclone copy", wanted), ("rclone copy, 32 at once", "")):
            theirs = seconds.get(f"{kind} {direction}")
            if theirs:
                rows[f"{kind} {direction} / {ours}"] = (theirs / seconds[ours], target)
    for way, taken in ways.taken.items():
        ours = way in ("push", "pull")
        rows[f"{way}: most resident memory, MiB"] = (taken.peak / MIB, MEMORY_WANTED if ours else "")
        if store.log:
            rows[f"{way}: requests"] = taken.requests
            rows[f"{way}: requests a file"] = taken.requests / files
        if ours and taken.counted is not None:
            rows[f"{way}: requests, as it says"] = taken.counted
    report(title, rows)


@contextlib.contextmanager
def s3s(work, milliseconds):
    (work / "served").mkdir()
    try:
        with bucket_server(work) as (variables, port, log), delayed(port, milliseconds) as far:
            yield Store(variables["BUCKET"], variables | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{far}"}, log)
    finally:
        shutil.rmtree(work / "served")


@contextlib.contextmanager
def one_garage(work, milliseconds):
    with cluster(work, 1, 1) as made, delayed(made.nodes[0].s3, milliseconds) as far:
        yield Store(GARAGE_BUCKET, made.variables(far))


STORES = {"s3s-fs": s3s, "garage": one_garage}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--mib", type=int, default=2048, help="of the large file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--delay", type=float, nargs="*", default=[0, 10], help="milliseconds each way")
    parser.add_argument("--store", choices=STORES, nargs="*", help="all that are here, unless told")
    args = parser.parse_args()
    need(BINARY, BUCKET_SERVER)
    if not RCLONE:
        print("no rows of rclone: there is no program 'rclone' here", flush=True)
    stores = args.store or [name for name in STORES if name != "garage" or GARAGE]
    if "garage" not in stores:
        print("no rows of Garage: there is no program 'garage' here, and GARAGE names none", flush=True)
    trees = [("small", args.files, f"{args.files} small files", ">= 2"), ("large", 1, f"{args.mib} MiB in one file", ">= 1")]
    for kind, files, what, wanted in trees:
        if not (args.files if kind == "small" else args.mib):
            continue
        for name, delay in itertools.product(stores, args.delay):
            with workdir() as work:
                tree = work / kind
                small_files(tree, files) if kind == "small" else large_file(tree / "large", args.mib << 20)
                with STORES[name](work, delay) as store:
                    title = f"push and pull of {what}, {name} at {delay:g} ms each way"
                    compare(work, tree, store, files, args.rounds, title, wanted)


if __name__ == "__main__":
    start(main)
