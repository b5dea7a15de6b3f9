#!/usr/bin/env python3
"""push and pull of 20,000 small files and of 2 GiB in one, through `farseek server` on loopback and between
two directories, against `rsync -a` of the same directory and a plain copy over HTTP.

Every push goes to a new repository behind a new server, every pull to a new repository. What is read is in the
page cache, for all alike. Ours is durable at its end, so the references are there with a `sync` of what they
made, too. Beside the times stands the most memory that a server has had.

Before each way everything that was written is on the disk. What the ways have made of small files is removed
when all are through: for minutes ext4 passes over each inode that was deleted, one by one, when it looks for a
free one, and who comes next would pay for that. BENCH_DIR=/dev/shm takes the disk out of the comparison.
"""

import argparse
import contextlib
import itertools
import shutil

from common import BINARY, alternate, environment, large_file, need, report, run, small_files, start, timed, workdir
from stand import NGINX, farseek_server, peak_bytes, rsync_daemon, static_server

RSYNC = shutil.which("rsync")
CURL = shutil.which("curl")
MIB = 1 << 20
MEMORY_WANTED = "<= 200"


class Ways:
    """The ways to get a tree to another place. All give seconds. What they have made is removed at once, or, where
    it is `kept`, put aside."""

    def __init__(self, work, tree, through, kept, env):
        self.work, self.tree, self.through, self.env = work, tree, through, env
        self.kept, self.aside = kept, itertools.count()
        self.here, self.copy = work / "here", work / "copy"
        self.peak = 0
        run([BINARY, "init", "repo", self.here], env)
        run([BINARY, "commit", tree, "--tag", "bench/tree", "--remote", self.here], env)

    def push(self):
        return self.transfer("push", None)

    def pull(self):
        return self.transfer("pull", self.here)

    @contextlib.contextmanager
    def end(self, repository):
        """The address of one end of a copy: a directory, or the server before it."""
        if not self.through:
            yield repository
            return
        with farseek_server(repository, self.env) as (url, _http, server):
            yield url
            self.peak = max(self.peak, peak_bytes(server.pid))

    def transfer(self, command, source):
        run([BINARY, "init", "repo", self.copy], self.env)
        with self.end(source or self.copy) as far:
            ends = [far, self.copy] if source else [self.here, far]
            copy = [BINARY, command, "bench/tree", "--from", ends[0], "--to", ends[1]]
            seconds = timed(lambda: run(copy, self.env))
        self.clear()
        return seconds

    def clear(self):
        if self.kept:
            self.copy.rename(self.work / f"aside-{next(self.aside)}")
        else:
            shutil.rmtree(self.copy)
        run(["sync", "-f", self.work])

    def made(self, commands):
        """Seconds of the commands, the last of which may be given what they have made."""

        def work():
            for command in commands:
                run(command)

        seconds = timed(work)
        self.clear()
        return seconds

    def rsync(self, source, *then):
        return self.made([[RSYNC, "-a", source, self.copy], *then])

    def plain(self, port, *then):
        """All files over one connection, one after the other, by a program that knows their names."""
        names = [path.relative_to(self.tree) for path in self.tree.rglob("*") if path.is_file()]
        config = self.work / "curl.conf"
        config.write_text("".join(f'url = "http://127.0.0.1:{port}/{n}"\noutput = "{self.copy / n}"\n' for n in names))
        return self.made([[CURL, "--silent", "--fail", "--create-dirs", "--config", config], *then])


def references(ways, stack):
    """What is measured beside ours, by name, as far as it can be had here."""
    found = {}
    sync = ["sync", "-f", ways.copy]
    if RSYNC:
        daemon = stack.enter_context(rsync_daemon(ways.work, ways.tree))
        for name, source in (("rsync -a", f"{ways.tree}/"), ("rsync -a from its daemon", daemon)):
            found[name] = lambda source=source: ways.rsync(source)
            found[f"{name} + sync"] = lambda source=source: ways.rsync(source, sync)
    else:
        print("no rows of rsync: there is no program 'rsync' here", flush=True)
    if NGINX and CURL:
        port, _log = stack.enter_context(static_server(ways.work, ways.tree, ways.env))
        found["plain HTTP copy"] = lambda: ways.plain(port)
        found["plain HTTP copy + sync"] = lambda: ways.plain(port, sync)
    else:
        print("no rows of a plain HTTP copy: it needs nginx and curl", flush=True)
    return found


def compare(work, tree, through, kept, rounds, title, wanted):
    ways = Ways(work, tree, through, kept, environment(work / "home"))
    with contextlib.ExitStack() as stack:
        others = references(ways, stack)
        seconds = alternate(rounds, **{"push": ways.push, "pull": ways.pull}, **others)
    for made in (ways.here, *work.glob("aside-*")):
        shutil.rmtree(made)
    rows = {f"{way}, s": taken for way, taken in seconds.items()}
    for way in others:
        rows |= {f"{way} / {ours}": (seconds[way] / seconds[ours], wanted.get(way, "")) for ours in ("push", "pull")}
    if through:
        rows["most resident memory of a server, MiB"] = (ways.peak / MIB, MEMORY_WANTED)
    report(f"{title}, {'through farseek server' if through else 'between two directories'}", rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--mib", type=int, default=2048, help="of the large file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["server", "directories"], help="leave the other one out")
    args = parser.parse_args()
    need(BINARY)
    ways = [way for way in ("server", "directories") if args.only in (None, way)]
    with workdir() as work:
        if args.files:
            small_files(work / "small", args.files)
        for way in ways if args.files else []:
            title = f"push and pull of {args.files} small files"
            compare(work, work / "small", way == "server", True, args.rounds, title, {"rsync -a": ">= 1"})
        shutil.rmtree(work / "small", ignore_errors=True)
        if args.mib:
            large_file(work / "large" / "large", args.mib << 20)
        for way in ways if args.mib else []:
            title = f"push and pull of {args.mib} MiB in one file"
            compare(work, work / "large", way == "server", False, args.rounds, title, {"plain HTTP copy": ">= 0.8"})


if __name__ == "__main__":
    start(main)
