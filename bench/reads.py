"""Ways of reading a file, each as a function of its path; all of them drop what they read.

Cold means that the page cache was dropped just before, warm that the file was read just before.
"""

import mmap
import os
import random
import time

from common import drop_page_cache

PAGE = 4096
PIECE = 1 << 20


def offsets(size, count, seed=3):
    """`count` different offsets of pages in random order (all of them where the file has fewer)."""
    pages = size // PAGE
    return [page * PAGE for page in random.Random(seed).sample(range(pages), min(count, pages))]


def sequential(path):
    buffer, total = bytearray(PIECE), 0
    with open(path, "rb", buffering=0) as f:
        while count := f.readinto(buffer):
            total += count
        if total != os.fstat(f.fileno()).st_size:
            raise EOFError(f"{path} gave {total} bytes only")


def scattered(path, at):
    buffer = [bytearray(PAGE)]
    fd = os.open(path, os.O_RDONLY)
    try:
        for offset in at:
            if os.preadv(fd, buffer, offset) != PAGE:
                raise EOFError(f"{path} gave too little at {offset}")
    finally:
        os.close(fd)


def mapped(path):
    with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as m:
        # One byte of each page: the faults are what is measured.
        m[::PAGE]


def mapped_scattered(path, at):
    with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as m:
        for offset in at:
            m[offset]


def cold(read, *args):
    """A subject for `alternate`: the page cache goes before, untimed."""

    def subject():
        drop_page_cache()
        return timed_read(read, *args)

    return subject


def warm(read, *args, times=1):
    """The same with the file in the page cache."""

    def subject():
        sequential(args[0])
        return sum(timed_read(read, *args) for _ in range(times))

    return subject


def timed_read(read, *args):
    started = time.perf_counter()
    read(*args)
    return time.perf_counter() - started
