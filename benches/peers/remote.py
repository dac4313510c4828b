"""An S3 server that is far away: the server that the tests use, behind the delaying proxy."""

import contextlib
import json
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from install import ROOT
from tools import Bucket

START_SECONDS = 120


class Far:
    """Starts a server for a round, with nothing in it."""

    def __init__(self, round_trip_ms):
        self.round_trip_ms = round_trip_ms
        subprocess.run([ROOT / ".ci/servers"], check=True)
        metadata = subprocess.run(
            ["cargo", "metadata", "--format-version", "1", "--no-deps"], cwd=ROOT, check=True, capture_output=True
        )
        self.moto = Path(json.loads(metadata.stdout)["target_directory"]) / "servers/moto/bin/moto_server"

    @contextlib.contextmanager
    def started(self, directory):
        directory.mkdir(parents=True, exist_ok=True)
        port = free_port()
        server = subprocess.Popen(
            [self.moto, "-H", "127.0.0.1", "-p", str(port)],
            cwd=directory,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        proxy = None
        try:
            wait_for(port)
            proxy = subprocess.Popen(
                [sys.executable, Path(__file__).with_name("delay.py"), str(port), str(self.round_trip_ms)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            yield Started(port, proxy)
        finally:
            for process in filter(None, (proxy, server)):
                process.terminate()
                process.wait()


class Started:
    def __init__(self, port, proxy):
        self.port = port
        self.proxy = proxy
        self.far_port = int(proxy.stdout.readline())

    def bucket(self, program):
        """A new bucket; made directly, which no program pays for."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/{program}-bucket", method="PUT")
        with urllib.request.urlopen(request, timeout=60):
            return Bucket(f"http://127.0.0.1:{self.far_port}", f"{program}-bucket")

    def traffic(self):
        """Connections, requests and bytes in each direction since this was asked last."""
        self.proxy.stdin.write("\n")
        self.proxy.stdin.flush()
        return json.loads(self.proxy.stdout.readline())


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(port):
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError("the S3 server does not start")
