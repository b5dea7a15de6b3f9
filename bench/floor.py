#!/usr/bin/env python3
"""What the file system itself takes for 20,000 small files, by the calls that cannot be left out, beside `rsync -a`.

A payload of SPFS's format is two files, its own and its blob object, each in a directory named by the beginning of
its digest, one of 1024. Each is made under another name, is on the disk before it has its own, and has its own on the
disk in the end. That is done here by two processes at once, of bytes that they have already: nothing is read, hashed,
sent or looked for, which a push or a pull has to do besides.

It is done with the waits for the disk and without: a program that makes the next files while it waits lies in between.
A part of it is Python's own. Beside it stands one file each, which is what rsync makes.
Nothing is removed between the ways, for the reason that `transfer.py` gives.
"""

import argparse
import itertools
import os
import random
import shutil

from common import alternate, report, run, small_files, start, timed, workdir

SHARDS = [a + b for a in "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567" for b in "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"]
PROCESSES = 2
OBJECT = 100
BATCH = 4096


class Files:
    """Files to make: where each is made, the name that it gets then, and its size."""

    def __init__(self, root, count, kinds):
        self.root, self.kinds = root, kinds
        source = random.Random(3)
        self.sizes = [source.randrange(1024, 16384) for _ in range(count)]
        self.first, self.final = {}, {}
        for kind in kinds:
            # Processes that make files in one directory wait for each other.
            for process in range(PROCESSES):
                (root / kind / f"work-{process}").mkdir(parents=True)
            self.first[kind] = [f"{root}/{kind}/work-{i % PROCESSES}/{i:054}" for i in range(count)]
            shards = (SHARDS[i * 7919 % len(SHARDS)] for i in range(count))
            self.final[kind] = [f"{root}/{kind}/{shard}/{i:054}" for i, shard in enumerate(shards)]

    def shards(self):
        for kind, shard in itertools.product(self.kinds, SHARDS):
            os.mkdir(f"{self.root}/{kind}/{shard}")

    def make(self, kind, some, content):
        for i in some:
            size = self.sizes[i] if kind == "payloads" else OBJECT
            descriptor = os.open(self.first[kind][i], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            os.write(descriptor, content[:size])
            os.close(descriptor)

    def place(self, kind, some):
        for i in some:
            os.rename(self.first[kind][i], self.final[kind][i])


def together(*works):
    """Does each work in a process of its own."""
    children = []
    for work in works:
        child = os.fork()
        if child == 0:
            try:
                work()
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    if any([os.waitpid(child, 0)[1] for child in children]):
        raise SystemExit("a process that makes files has failed")


def shares(some):
    return [some[at::PROCESSES] for at in range(PROCESSES)]


def written(files, durable):
    """Makes the files, a batch after the other, and waits for the disk where they are to be `durable`."""
    content = memoryview(random.Random(4).randbytes(16384))

    def sync():
        if durable:
            run(["sync", "-f", files.root])

    files.shards()
    for first in range(0, len(files.sizes), BATCH):
        batch = range(first, min(first + BATCH, len(files.sizes)))
        both = [(kind, some) for kind in files.kinds for some in shares(batch)]
        works = [lambda kind=kind, some=some: files.make(kind, some, content) for kind, some in both]
        for at in range(0, len(works), PROCESSES):
            together(*works[at : at + PROCESSES])
        sync()
        # Payloads have their names on the disk before their objects have theirs.
        for kind in files.kinds:
            together(*[lambda some=some: files.place(kind, some) for some in shares(batch)])
            sync()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    rsync = shutil.which("rsync")
    with workdir() as work:
        small_files(work / "small", args.files)
        aside = itertools.count()

        def way(kinds, durable):
            files = Files(work / f"made-{next(aside)}", args.files, kinds)
            run(["sync", "-f", work])
            return timed(lambda: written(files, durable))

        def copied():
            run(["sync", "-f", work])
            return timed(lambda: run([rsync, "-a", f"{work}/small/", work / f"copy-{next(aside)}"]))

        pairs = ["payloads", "objects"]
        ways = {
            "two files each, durable": lambda: way(pairs, True),
            "two files each": lambda: way(pairs, False),
            "one file each": lambda: way(pairs[:1], False),
        }
        if rsync:
            ways["rsync -a"] = copied
        seconds = alternate(args.rounds, **ways)
    rows = {f"{name}, s": taken for name, taken in seconds.items()}
    if rsync:
        rows |= {f"rsync -a / {name}": seconds["rsync -a"] / seconds[name] for name in list(ways)[:3]}
    report(f"the file system's own time for {args.files} small files", rows)


if __name__ == "__main__":
    start(main)
