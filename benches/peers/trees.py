"""Trees of files: reading them into memory, and comparing them."""

import hashlib
import os
import stat


def warm(root, content=True):
    """Looks at every file once, and reads it if that is wanted, so that no program pays for the disk."""
    buffer = bytearray(1 << 20)
    for place, _, names in os.walk(root):
        for name in names:
            path = os.path.join(place, name)
            if stat.S_ISREG(os.lstat(path).st_mode) and content:
                with open(path, "rb", buffering=0) as file:
                    while file.readinto(buffer):
                        pass


def count(root):
    """How many files there are below a directory, and their bytes."""
    files = size = 0
    for place, _, names in os.walk(root):
        files += len(names)
        size += sum(os.lstat(os.path.join(place, name)).st_size for name in names)
    return files, size


def differences(left, right, most=10):
    """What differs between two trees, at most so many lines of it: names, kinds, permissions, whole seconds of
    modification times of files (GNU tar's default format has no more), link targets, content."""
    found = []
    ours, theirs = describe(left), describe(right)
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            found.append(f"{name}: {ours.get(name)} is {theirs.get(name)}")
            if len(found) == most:
                break
    return found


def describe(root):
    """Everything that is compared, by name relative to the root."""
    entries = {}
    for place, directories, names in os.walk(root):
        for name in directories + names:
            path = os.path.join(place, name)
            about = os.lstat(path)
            kind, mode = stat.S_IFMT(about.st_mode), stat.S_IMODE(about.st_mode)
            key = os.path.relpath(path, root)
            if stat.S_ISLNK(about.st_mode):
                entries[key] = (kind, os.readlink(path))
            elif stat.S_ISREG(about.st_mode):
                entries[key] = (kind, mode, int(about.st_mtime), about.st_size, digest(path))
            else:
                entries[key] = (kind, mode)
    return entries


def digest(path):
    """A hash of a file's content."""
    state = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            state.update(block)
    return state.hexdigest()
