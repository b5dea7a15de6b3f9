#!/usr/bin/env python3
"""First `ls -R` after mounting 20,000 and 500,000 entries, against the same tree on disk, and the
daemon's resident memory per entry."""

import argparse

from common import (BINARY, drop_page_cache, environment, mounted, need_binary, report,
                    resident_bytes, run, served, timed, workdir)


def tree(directory, entries):
    """Directories of 500 empty files: entries are what is measured, not payloads."""
    made = 0
    while made < entries:
        parent = directory / f"directory-{made // 500:05}"
        parent.mkdir(parents=True)
        for i in range(min(499, entries - made - 1)):
            (parent / f"file-{i:05}.py").touch()
        made += 500


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, nargs="*", default=[20_000, 500_000])
    args = parser.parse_args()
    need_binary()
    for entries in args.entries:
        with workdir() as work:
            env = environment(work / "home")
            source, repository = work / "tree", work / "repository"
            tree(source, entries)
            run([BINARY, "init", "repo", repository], env)
            run([BINARY, "commit", source, "--tag", "bench/tree", "--remote", repository], env)
            drop_page_cache()
            on_disk = timed(lambda: run(["ls", "-R", source]))
            on_disk_long = timed(lambda: run(["ls", "-lR", source]))
            with served(repository, env) as url:
                mount = mounted("bench/tree", work / "mount", url, env)
                with_mount = {}

                def until_mounted():
                    with_mount["pid"] = mount.__enter__()

                seconds = {"mount": timed(until_mounted)}
                try:
                    seconds["first"] = timed(lambda: run(["ls", "-R", work / "mount"]))
                    seconds["long"] = timed(lambda: run(["ls", "-lR", work / "mount"]))
                    resident = resident_bytes(with_mount["pid"])
                finally:
                    mount.__exit__(None, None, None)
            report(f"{entries} entries", {
                "until the mount answers, s": seconds["mount"],
                "first ls -R in the mount, s": seconds["first"],
                "ls -lR in the mount after it, s": seconds["long"],
                "first ls -R on disk (cold), s": on_disk,
                "ls -lR on disk after it, s": on_disk_long,
                "first ls -R / on disk": seconds["first"] / on_disk,
                "(mount + first ls -R) / on disk": (seconds["mount"] + seconds["first"]) / on_disk,
                "resident bytes per entry": resident / entries,
            })


if __name__ == "__main__":
    main()
