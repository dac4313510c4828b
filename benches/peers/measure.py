"""Runs a program, or a pipe of programs, and says what it cost: wall time, CPU, memory, bytes."""

import os
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

# GNU time, because a process started from here would inherit the peak memory of this interpreter: Linux keeps the
# high-water mark of a process over exec, and Python starts processes by vfork.
GNU_TIME = "/usr/bin/time"
# A program that hangs must not take the night.
TIMEOUT_SECONDS = 3600
SAID_BYTES_MAX = 4000


@dataclass
class Command:
    """Programs connected by pipes, most often just one, and what they find around them."""

    steps: list
    env: dict = field(default_factory=dict)
    cwd: Path = None
    # Only these processors, as `taskset -c` takes them.
    cores: str = None


@dataclass
class Cost:
    """What one run cost. Times in seconds; the peak is the sum of the peaks of a pipe's programs."""

    wall: float
    user: float
    system: float
    peak_kib: int
    sync: float

    def row(self):
        return {name: round(value, 4) for name, value in vars(self).items()}


class Failed(Exception):
    """A program ended with another status than 0; the text is the end of what it said."""


def run(command):
    """Runs a command to its end; returns its `Cost` or raises `Failed`.

    What was written before is synced first, so that nobody pays for those who ran before. How long a sync takes
    afterwards is measured, too, because some programs sync what they write and others leave that to the system.
    """
    os.sync()
    with tempfile.TemporaryDirectory() as directory, tempfile.TemporaryFile() as said:
        notes = Path(directory)
        processes = []
        started = time.monotonic()
        for number, step in enumerate(command.steps):
            last = number == len(command.steps) - 1
            pinned = ["taskset", "-c", command.cores] if command.cores else []
            process = subprocess.Popen(
                [*pinned, GNU_TIME, "-f", "%U %S %M", "-o", notes / str(number), *map(str, step)],
                stdin=processes[-1].stdout if processes else subprocess.DEVNULL,
                stdout=subprocess.DEVNULL if last else subprocess.PIPE,
                stderr=said,
                env=environment(command.env),
                cwd=command.cwd,
                # So that what GNU time started can be ended with it.
                start_new_session=True,
            )
            # The pipe belongs to the two programs now; held open here, it would never break.
            if processes:
                processes[-1].stdout.close()
            processes.append(process)
        try:
            statuses = [process.wait(TIMEOUT_SECONDS) for process in processes]
        except BaseException as error:
            for process in processes:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise Failed(f"{command.steps[0][0]}: not done after {TIMEOUT_SECONDS} s") from error
            raise
        wall = time.monotonic() - started
        if any(statuses):
            said.seek(max(0, said.seek(0, os.SEEK_END) - SAID_BYTES_MAX))
            text = said.read().decode(errors="replace").strip()
            raise Failed(f"{command.steps[0][0]} and after: exit {statuses}: {text}")
        started = time.monotonic()
        os.sync()
        sync = time.monotonic() - started
        figures = [(notes / str(n)).read_text().split("\n")[-2].split() for n in range(len(processes))]
        return Cost(
            wall=wall,
            user=sum(float(user) for user, _, _ in figures),
            system=sum(float(system) for _, system, _ in figures),
            peak_kib=sum(int(peak) for _, _, peak in figures),
            sync=sync,
        )


def just_run(command):
    """Runs one program without measuring it; raises what `subprocess` raises."""
    env = environment(command.env)
    subprocess.run(command.steps[0], env=env, cwd=command.cwd, check=True, capture_output=True, timeout=TIMEOUT_SECONDS)


def environment(more):
    """Little of what is around here, so that no setting of this machine's changes what is compared."""
    kept = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
    return {**kept, "LANG": "C.UTF-8", **{name: str(value) for name, value in more.items()}}


def stored_bytes(directory):
    """The sizes of all files below a directory, in bytes."""
    total = 0
    for place, _, names in os.walk(directory):
        total += sum(os.lstat(os.path.join(place, name)).st_size for name in names)
    return total
