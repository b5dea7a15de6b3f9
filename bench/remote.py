#!/usr/bin/env python3
"""A mount of a far repository against plain HTTP clients, through the delay proxy.

One file read from end to end, against the best parallel download of it; 4 KiB here and there,
against bare ranged GETs; many small files read by tar, against a round trip for each.
"""

import argparse
import itertools
import subprocess

from clients import Client, by_curl, by_threads
from common import (BINARY, DELAY_PROXY, alternate, environment, large_file, need, report, run, small_files,
                    start, timed, workdir)
from reads import PAGE, offsets, scattered, sequential
from stand import commit, delayed, far, mounted, payload_requests, payloads, static_server

BLOCK = 256 << 10  # of the reader, unless told otherwise


class Remote:
    """A far repository, and mounts of it that know nothing yet: each has a home of its own."""

    def __init__(self, work, port, log, flags=()):
        self.work, self.port, self.log, self.flags = work, port, log, flags
        self.fresh = itertools.count()
        self.asked = "unknown"

    def cold(self, read):
        """A subject: `read` of a mount's directory, timed, in a mount that has read nothing before."""

        def subject():
            home = self.work / f"home{next(self.fresh)}"
            mountpoint = self.work / "mount"
            with mounted("bench/tree", mountpoint, environment(home), *far(self.port, *self.flags)):
                before = payload_requests(self.log)
                seconds = timed(lambda: read(mountpoint))
            self.asked = payload_requests(self.log) - before if self.log else self.asked
            run(["rm", "-rf", home])
            return seconds

        return subject


def place(each_way, rate):
    return f"{each_way:g} ms each way" + (f", {rate / 1e6:g} MB/s" if rate else "")


def url_path(repository, payload):
    return "/" + str(payload.relative_to(repository))


def whole_file(remote, path, size, args, title, connections):
    clients = {"threads": by_threads, "curl": by_curl}
    subjects = {
        f"{name}, {count}": lambda get=get, count=count: get(remote.port, path, size, count)
        for name, get in clients.items() for count in connections
    }
    seconds = alternate(args.rounds, mount=remote.cold(lambda mount: sequential(mount / "large")), **subjects)
    ours = seconds.pop("mount")
    best = min(seconds, key=seconds.get)
    mib = size / (1 << 20)
    report(f"{size >> 20} MiB read from end to end, {title}", {
        f"best plain download ({best} connections), MiB/s": mib / seconds[best],
        "mount, MiB/s": mib / ours,
        "requests of the mount": remote.asked,
        "mount / best download": (seconds[best] / ours, ">= 0.8"),
    })


def here_and_there(remote, path, size, args, title):
    at = offsets(size, args.reads)
    blocks = list(dict.fromkeys(offset // BLOCK * BLOCK for offset in at))

    def gets(starts, length):
        with Client(remote.port) as client:
            for offset in starts:
                client.get(path, offset, min(offset + length, size))

    seconds = alternate(
        args.rounds,
        mount=remote.cold(lambda mount: scattered(mount / "large", at)),
        blocks=lambda: gets(blocks, BLOCK),
        pages=lambda: gets(at, PAGE),
    )
    report(f"{len(at)} x pread of 4 KiB at random in {size >> 20} MiB, cold, {title}", {
        f"GETs of the {len(blocks)} blocks of 256 KiB, each once, s": seconds["blocks"],
        f"GETs of the {len(at)} times 4 KiB, s": seconds["pages"],
        "mount, s": seconds["mount"],
        "requests of the mount": remote.asked,
        "mount / GETs of the blocks": (seconds["mount"] / seconds["blocks"], "<= 1.3"),
        "mount / GETs of the 4 KiB": seconds["mount"] / seconds["pages"],
    })


def tar(directory):
    # Straight to /dev/null it would read nothing.
    command = ["tar", "--create", "--file=-", f"--directory={directory}", "."]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as packing:
        subprocess.run(["cat"], stdin=packing.stdout, stdout=subprocess.DEVNULL, check=True)
    if packing.returncode:
        raise subprocess.CalledProcessError(packing.returncode, command)


def many_small(remote, repository, files, args, title, each_way):
    sample = [url_path(repository, p) for p in payloads(repository)[: args.sample]]

    def one_by_one():
        with Client(remote.port) as client:
            return timed(lambda: [client.get(path) for path in sample])

    seconds = alternate(args.rounds, mount=remote.cold(tar), sample=one_by_one)
    measured = seconds["sample"] / len(sample) * files
    computed = files * 2 * each_way / 1000
    report(f"{files} small files by tar, {title}", {
        "a round trip each, computed, s": computed,
        f"GETs one by one, from {len(sample)} of them, s": measured,
        "mount, s": seconds["mount"],
        "requests of the mount": remote.asked,
        "computed / mount": (computed / seconds["mount"], ">= 10"),
        "GETs one by one / mount": (measured / seconds["mount"], ">= 10"),
    })


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["whole", "random", "small"], nargs="*", default=["whole", "random", "small"])
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--reads", type=int, default=2000)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--sample", type=int, default=500, help="files that are fetched one by one")
    parser.add_argument("--connections", type=int, nargs="*", default=[1, 4, 8, 16])
    parser.add_argument("--each-way", type=float, nargs="*", default=[0, 10], metavar="MS")
    parser.add_argument("--rate", type=int, nargs="*", default=[0, 600_000_000], metavar="BYTES",
                        help="bandwidths of the line for the large file, bytes a second; 0 is no limit")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--flag", action="append", default=[], help="passed to farseek mount, as --flag=--threads=4")
    return parser.parse_args()


def large(work, env, args):
    size = args.mib << 20
    large_file(work / "tree" / "large", size)
    repository = commit(work, work / "tree", env)
    run(["rm", "-r", work / "tree"])
    path = url_path(repository, max(payloads(repository), key=lambda f: f.stat().st_size))
    with static_server(work, repository, env) as (port, log):
        for each_way, rate in itertools.product(args.each_way, args.rate):
            title = place(each_way, rate)
            with delayed(port, each_way, rate) as near:
                remote = Remote(work, near, log, args.flag)
                if "whole" in args.only:
                    whole_file(remote, path, size, args, title, args.connections)
                if "random" in args.only and not rate:
                    here_and_there(remote, path, size, args, title)


def small(work, env, args):
    small_files(work / "tree", args.files)
    repository = commit(work, work / "tree", env)
    run(["rm", "-r", work / "tree"])
    each_way = max(args.each_way)
    with static_server(work, repository, env) as (port, log), delayed(port, each_way) as near:
        remote = Remote(work, near, log, args.flag)
        many_small(remote, repository, args.files, args, place(each_way, 0), each_way)


def main():
    args = arguments()
    need(BINARY, DELAY_PROXY)
    for wanted, measure in (({"whole", "random"}, large), ({"small"}, small)):
        if wanted & set(args.only):
            with workdir() as work:
                measure(work, environment(work / "home"), args)


if __name__ == "__main__":
    start(main)
