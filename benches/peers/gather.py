"""Corpora of real files: copies of what the machine has, in a fixed order, without exact duplicates."""

import glob
import os
import shutil
import sys
from pathlib import Path

import trees

TEXT_BYTES_MAX = 2 << 20
HOME = Path.home()


def text_roots(more=()):
    """Where there is source text, the most typical first."""
    return existing(
        [
            *more,
            f"{HOME}/.rustup/toolchains/*/lib/rustlib/src",
            f"{os.environ.get('CARGO_HOME', HOME / '.cargo')}/registry/src/*",
            "/usr/src",
            "/usr/include",
            "/usr/lib/python3*",
            "/usr/local/lib/python3*",
            f"{HOME}/.pyenv/versions/*",
            sys.base_prefix if sys.base_prefix not in ("/usr", "/usr/local") else "",
            "/usr/lib/node_modules",
            "/usr/share/nodejs",
            "/usr/lib/go-[0-9]*",
            "/usr/local/go",
            "/usr/lib/google-cloud-sdk/lib",
            "/usr/share",
            f"{HOME}/.rustup/toolchains/*/share/doc",
        ]
    )


def object_roots():
    """Where there are shared objects."""
    return existing(
        [
            "/usr/lib",
            "/usr/local/lib",
            f"{HOME}/.rustup/toolchains/*/lib",
            sys.base_prefix,
            f"{HOME}/.pyenv/versions/*",
            "/opt",
        ]
    )


def existing(patterns):
    found = []
    for pattern in patterns:
        for path in sorted(glob.glob(str(pattern))) if pattern else []:
            real = Path(path).resolve()
            if real.is_dir() and not any(real.is_relative_to(other) for other in found):
                found.append(real)
    return found


def is_text(path, size):
    """Text of the size that sources have: the first 4 KiB hold no zero byte and are UTF-8."""
    if not 0 < size <= TEXT_BYTES_MAX:
        return False
    with open(path, "rb") as file:
        start = file.read(4096)
    try:
        start[: max(1, len(start) - 3)].decode()
    except ValueError:
        return False
    return b"\0" not in start


def is_object(path, size):
    name = os.path.basename(path)
    if not (name.endswith(".so") or ".so." in name or name.endswith(".rlib")) or size < 1024:
        return False
    with open(path, "rb") as file:
        return file.read(4) in (b"\x7fELF", b"!<ar")


def gather(data, roots, wanted, files, size):
    """Copies files that are wanted until there are so many files and so many bytes; returns what was taken."""
    seen, taken_files, taken_bytes, parts = set(), 0, 0, []
    for number, root in enumerate(roots):
        if taken_files >= files and taken_bytes >= size:
            break
        here_files, here_bytes = 0, 0
        for path, about in walk(root):
            if taken_files >= files and taken_bytes >= size:
                break
            try:
                if not wanted(path, about.st_size):
                    continue
                key = trees.digest(path)
                if key in seen:
                    continue
                seen.add(key)
                to = data / f"{number:02}-{root.name}" / os.path.relpath(path, root)
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, to)
            except OSError:
                # Gone, or not for this user to read.
                continue
            os.chmod(to, about.st_mode & 0o755 | 0o600)
            os.utime(to, ns=(about.st_mtime_ns, about.st_mtime_ns))
            taken_files, here_files = taken_files + 1, here_files + 1
            taken_bytes, here_bytes = taken_bytes + about.st_size, here_bytes + about.st_size
        if here_files:
            parts.append(f"{here_files} files, {here_bytes / 1e6:.0f} MB of {shown(root)}")
    enough = taken_files >= files and taken_bytes >= size
    return {
        "files": taken_files,
        "bytes": taken_bytes,
        "made_of": "; ".join(parts) + ("" if enough else " (the machine has no more: smaller than it should be)"),
    }


def walk(root):
    """Regular files below a root on its file system, in the order of their names."""
    device = os.stat(root).st_dev
    for place, directories, names in os.walk(root):
        directories[:] = sorted(
            name
            for name in directories
            if name != "__pycache__" and os.lstat(os.path.join(place, name)).st_dev == device
        )
        for name in sorted(names):
            path = os.path.join(place, name)
            about = os.lstat(path)
            if (about.st_mode & 0o170000) == 0o100000:
                yield path, about


def shown(root):
    """A root as it may be printed."""
    return str(root).replace(str(HOME), "~")
