#!/usr/bin/env python3
"""Writes so many bytes to standard output: stream.py BYTES

Text, numbers and random bytes in turn; no 4 KiB are there twice, so that nothing of it deduplicates.
"""

import random
import sys

import generate

# Longer than the window of zstd at the levels in use, or one block would be found in the one before.
BLOCK = 8 << 20
PAGE = 4096


def block():
    dice = random.Random(5)
    out = bytearray()
    while len(out) < BLOCK:
        out += "".join(generate.event(dice, number) for number in range(300)).encode()
        out += dice.randbytes(16 << 10)
    return out[:BLOCK]


def main(size):
    data, written, number = block(), 0, 0
    while written < size:
        for page in range(0, BLOCK, PAGE):
            number += 1
            data[page : page + 8] = number.to_bytes(8, "little")
        part = memoryview(data)[: size - written]
        sys.stdout.buffer.write(part)
        written += len(part)


if __name__ == "__main__":
    main(int(sys.argv[1]))
