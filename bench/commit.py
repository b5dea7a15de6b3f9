#!/usr/bin/env python3
"""Commit of 50,000 small files and of 4 GiB in one, against `cp -r` plus `sha256sum` of the same."""

import argparse
import itertools
import shutil

from common import (BINARY, alternate, drop_page_cache, environment, large_file, need, report, run, small_files,
                    start, workdir)


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
    parser.add_argument("--files", type=int, default=50_000)
    parser.add_argument("--gib", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    need(BINARY)
    with workdir() as work:
        small_files(work / "small", args.files)
        compare(work, work / "small", args.rounds, f"commit of {args.files} small files")
        shutil.rmtree(work / "small")
        large_file(work / "large" / "large", args.gib << 30)
        compare(work, work / "large", args.rounds, f"commit of {args.gib} GiB in one file")


if __name__ == "__main__":
    start(main)
