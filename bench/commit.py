#!/usr/bin/env python3
"""Commit of 20,000 small files and of 2 GiB in one, against `cp -r` plus `sha256sum` of the same."""

import argparse
import itertools
import random
import shutil

from common import BINARY, alternate, drop_page_cache, environment, need_binary, report, run, workdir


def small_files(directory, count):
    """`count` files of 1 to 16 KiB of random bytes, a hundred to a directory."""
    source = random.Random(1)
    for i in range(count):
        parent = directory / f"{i // 100:04}"
        parent.mkdir(parents=True, exist_ok=True)
        (parent / f"{i:06}").write_bytes(source.randbytes(source.randrange(1024, 16384)))


def large_file(directory, size):
    directory.mkdir()
    source = random.Random(2)
    with open(directory / "large", "wb") as f:
        for _ in range(size >> 20):
            f.write(source.randbytes(1 << 20))


def compare(work, tree, rounds, title):
    env = environment(work / "home")
    fresh = itertools.count()

    def reference():
        copy = work / f"copy{next(fresh)}"
        run(["cp", "-r", tree, copy])
        run(["sh", "-c", f"find {copy} -type f -print0 | xargs -0 sha256sum > /dev/null"])
        shutil.rmtree(copy)

    def reference_synced():
        copy = work / f"copy{next(fresh)}"
        run(["cp", "-r", tree, copy])
        run(["sync", "-f", copy])
        run(["sh", "-c", f"find {copy} -type f -print0 | xargs -0 sha256sum > /dev/null"])
        shutil.rmtree(copy)

    def commit():
        repository = work / f"repository{next(fresh)}"
        run([BINARY, "init", "repo", repository], env)
        run([BINARY, "commit", tree, "--tag", "bench/tree", "--remote", repository], env)
        shutil.rmtree(repository)

    drop_page_cache()
    run(["sh", "-c", f"find {tree} -type f -print0 | xargs -0 cat > /dev/null"])
    seconds = alternate(rounds, reference=reference, synced=reference_synced, commit=commit)
    report(title, {
        "cp -r + sha256sum, s": seconds["reference"],
        "cp -r + sync + sha256sum, s": seconds["synced"],
        "farseek commit (durable), s": seconds["commit"],
        "commit / reference": seconds["commit"] / seconds["reference"],
        "commit / synced reference": seconds["commit"] / seconds["synced"],
    })


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--gib", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    need_binary()
    with workdir() as work:
        small_files(work / "small", args.files)
        compare(work, work / "small", args.rounds, f"commit of {args.files} small files")
        shutil.rmtree(work / "small")
        large_file(work / "large", args.gib << 30)
        compare(work, work / "large", args.rounds, f"commit of {args.gib} GiB in one file")


if __name__ == "__main__":
    main()
