"""Results as JSON lines, written as they come: a run that is cut off loses nothing and can go on later.

Each line has a `kind`: `machine`, `program` (found, or missing and why), `corpus`, `run` (one phase of one program in
one round), `compared` (a restored tree with the original), `done` (a round, or a point of a curve).
"""

import json
import os
import platform
import subprocess
import time
from pathlib import Path


class Results:
    """A file of results; a line is on the disk once `add` returns."""

    def __init__(self, path):
        self.path = Path(path)
        self.rows = []
        if self.path.exists():
            for line in self.path.read_text().splitlines():
                try:
                    self.rows.append(json.loads(line))
                except ValueError:
                    # The last line of a run that was killed while it wrote.
                    continue

    def add(self, kind, **what):
        row = {"kind": kind, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **what}
        self.rows.append(row)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def of(self, kind, **where):
        """The lines of a kind that have these values."""
        wanted = {"kind": kind, **where}
        return [row for row in self.rows if all(row.get(name) == value for name, value in wanted.items())]

    def runs(self, **where):
        """The runs with these values, one for each key: of what was begun twice, the later."""
        latest = {}
        for row in self.of("run", **where):
            key = tuple(row.get(name) for name in ("variant", "corpus", "phase", "program", "round", "cores", "point"))
            latest[key] = row
        return list(latest.values())


def machine(work):
    """What the figures depend on: processors, memory, file system, kernel."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    memory = int(Path("/proc/meminfo").read_text().split()[1]) // 1024
    kind = subprocess.run(["stat", "-f", "-c", "%T", work], capture_output=True, text=True).stdout.strip()
    return {
        "cores": len(os.sched_getaffinity(0)),
        "model": model,
        "memory_mib": memory,
        "file_system": kind,
        "kernel": platform.release(),
    }
