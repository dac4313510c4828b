"""The programs that are compared: how each makes a repository, backs up, restores and checks.

Every one encrypts, keeps its caches in a directory of its own, and runs with its defaults; where a level of
compression has to be chosen it is zstd's 3. Passphrases come from the environment or from files.
"""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from measure import Command

PASSPHRASE = "correct horse battery staple"


@dataclass
class Bucket:
    """An S3 bucket that anyone may use who gives any key."""

    endpoint: str
    name: str

    def env(self):
        return {
            "AWS_ACCESS_KEY_ID": "peers",
            "AWS_SECRET_ACCESS_KEY": "peers-peers",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
        }


@dataclass
class Place:
    """Where one program works in one round: a directory of its own, and perhaps a bucket for the repository."""

    directory: Path
    bucket: Bucket = None
    # The newest backup that was made.
    last: str = ""
    # Of `backup` alone: a file with the key, instead of a passphrase.
    key: Path = None

    @property
    def repository(self):
        return self.directory / "repository"

    @property
    def home(self):
        return self.directory / "home"

    def env(self, **more):
        found = {"HOME": self.home, "XDG_CACHE_HOME": self.home / "cache", "XDG_CONFIG_HOME": self.home / "config"}
        found.update(self.bucket.env() if self.bucket else {})
        return {**found, **more}


class Program:
    """One of the programs. A method that returns None says that the program does not do this."""

    name = ""
    # What must be there, and how each says which version it is.
    needs = ()
    remote = False

    def __init__(self):
        self.paths = {}

    def find(self, directories, given=None):
        """Looks for what is needed, in these directories first; returns what is missing."""
        search = ":".join([*map(str, directories), "/usr/local/bin", "/usr/bin", "/bin"])
        for need in self.needs:
            path = given if given and need == self.name else shutil.which(need, path=search) or shutil.which(need)
            if path:
                self.paths[need] = str(path)
        return [need for need in self.needs if need not in self.paths]

    def version(self):
        """The first line of what each of the programs says about its version."""
        versions = []
        for need in self.needs:
            for argument in ("--version", "version"):
                answer = subprocess.run([self.paths[need], argument], capture_output=True, text=True)
                text = (answer.stdout + answer.stderr).strip().split("\n")[0].split(" compiled")[0].strip("* ")
                if answer.returncode == 0 and text:
                    text = " ".join(text.replace("command line interface (64-bits)", "").replace(",", " ").split())
                    versions.append(text.split(" by ")[0] if need in text else f"{need} {text}")
                    break
        return "; ".join(versions)

    def prepare(self, place):
        """What has to be there before, beside the repository; nothing of it is measured."""

    def init(self, place):
        return None

    def backup(self, place, source, phase):
        return None

    def restore(self, place, out):
        return None

    def check(self, place):
        return None

    def restored(self, out, source):
        """Where the content of the source stands in a restored directory: below its whole path."""
        return out / str(source).lstrip("/")


class Backup(Program):
    name = "backup"
    needs = ("backup",)
    remote = True

    def command(self, place, *arguments):
        repository, env = place.repository, {}
        if place.bucket:
            repository = f"s3://{place.bucket.name}/backup"
            env = {"AWS_ENDPOINT_URL": place.bucket.endpoint, "AWS_ALLOW_HTTP": "true"}
        front = [self.paths["backup"], "--progress", "none", "--repo", repository]
        secret = {"BACKUP_KEY_FILE": place.key} if place.key else {"BACKUP_PASSWORD": PASSPHRASE}
        return Command([[*front, *arguments]], place.env(**secret, **env))

    def init(self, place):
        return self.command(place, "init")

    def backup(self, place, source, phase):
        return self.command(place, "create", "files", source)

    def restore(self, place, out):
        return self.command(place, "restore", "latest", "--to", out)

    def check(self, place):
        return self.command(place, "verify", "--level", "content")

    # For the curves of growth.

    def list(self, place):
        return self.command(place, "list")

    def backup_stream(self, place, stream):
        return self.command(place, "create", "command", "--name", "stream", "--", *stream)

    def restore_stream(self, place):
        return self.command(place, "cat", "latest", "stream")


class Restic(Program):
    name = "restic"
    needs = ("restic",)
    remote = True

    def command(self, place, *arguments):
        repository = place.repository
        if place.bucket:
            repository = f"s3:{place.bucket.endpoint}/{place.bucket.name}/restic"
        env = place.env(RESTIC_PASSWORD=PASSPHRASE, RESTIC_CACHE_DIR=place.home / "cache")
        return Command([[self.paths["restic"], "--quiet", "--repo", repository, *arguments]], env)

    def init(self, place):
        return self.command(place, "init")

    def backup(self, place, source, phase):
        return self.command(place, "backup", source)

    def restore(self, place, out):
        return self.command(place, "restore", "latest", "--target", out)

    def check(self, place):
        return self.command(place, "check", "--read-data")


class Rustic(Program):
    name = "rustic"
    needs = ("rustic",)
    remote = True

    def command(self, place, *arguments):
        env = place.env(RUSTIC_PASSWORD=PASSPHRASE, RUSTIC_CACHE_DIR=place.home / "cache", RUSTIC_NO_PROGRESS="true")
        env["RUSTIC_REPOSITORY"] = place.repository
        if place.bucket:
            env["RUSTIC_REPOSITORY"] = "opendal:s3"
            options = {
                "bucket": place.bucket.name,
                "endpoint": place.bucket.endpoint,
                "region": "us-east-1",
                "root": "/rustic",
            }
            env.update({f"OPENDAL_{name.upper()}": value for name, value in options.items()})
        return Command([[self.paths["rustic"], *arguments]], env)

    def init(self, place):
        return self.command(place, "init")

    def backup(self, place, source, phase):
        return self.command(place, "backup", source)

    def restore(self, place, out):
        return self.command(place, "restore", "latest", out)

    def check(self, place):
        return self.command(place, "check", "--read-data")


class Borg(Program):
    name = "borg"
    needs = ("borg",)

    def command(self, place, *arguments):
        env = place.env(
            BORG_PASSPHRASE=PASSPHRASE,
            BORG_BASE_DIR=place.home,
            BORG_CACHE_DIR=place.home / "cache",
            BORG_REPO=place.repository,
        )
        return Command([[self.paths["borg"], *arguments]], env)

    def init(self, place):
        return self.command(place, "init", "--encryption", "repokey-blake2")

    def backup(self, place, source, phase):
        return self.command(place, "create", "--compression", "zstd,3", f"::{phase}", source)

    def restore(self, place, out):
        command = self.command(place, "extract", f"::{place.last}")
        command.cwd = out
        return command

    def check(self, place):
        return self.command(place, "check", "--verify-data")


class Pipe(Program):
    """`tar | zstd -3 -T2 | age`: no deduplication, no index, one file."""

    name = "pipe"
    needs = ("tar", "zstd", "age", "age-keygen")

    def version(self):
        tools = [tool for tool in self.needs if tool != "age-keygen"]
        versions = []
        for tool in tools:
            text = subprocess.run([self.paths[tool], "--version"], capture_output=True, text=True).stdout
            number = next(word for word in text.split() if word.strip("v,").replace(".", "").isdigit())
            versions.append(f"{tool} {number.strip('v,')}")
        return "; ".join(versions)

    def prepare(self, place):
        key = place.directory / "key"
        subprocess.run([self.paths["age-keygen"], "-o", key], check=True, capture_output=True)
        line = next(line for line in key.read_text().splitlines() if line.startswith("# public key: "))
        place.recipient = line.split(": ")[1]
        place.repository.mkdir()

    def backup(self, place, source, phase):
        if phase != "initial":
            return None
        archive = place.repository / "archive.tar.zst.age"
        return Command(
            [
                [self.paths["tar"], "-C", source.parent, "-cf", "-", source.name],
                [self.paths["zstd"], "-q", "-3", "-T2"],
                [self.paths["age"], "-r", place.recipient, "-o", archive],
            ],
            place.env(),
        )

    def restore(self, place, out):
        archive = place.repository / "archive.tar.zst.age"
        return Command(
            [
                [self.paths["age"], "-d", "-i", place.directory / "key", archive],
                [self.paths["zstd"], "-q", "-d"],
                [self.paths["tar"], "-C", out, "-xf", "-"],
            ],
            place.env(),
        )

    def restored(self, out, source):
        return out / source.name


class Bupstash(Program):
    """Compared in what it is known for, the unchanged tree."""

    name = "bupstash"
    needs = ("bupstash",)

    def command(self, place, *arguments):
        env = place.env(
            BUPSTASH_REPOSITORY=place.repository,
            BUPSTASH_KEY=place.directory / "key",
            BUPSTASH_SEND_LOG=place.home / "send-log",
            BUPSTASH_QUERY_CACHE=place.home / "query-cache",
        )
        return Command([[self.paths["bupstash"], *arguments]], env)

    def prepare(self, place):
        command = self.command(place, "new-key", "-o", place.directory / "key")
        subprocess.run(command.steps[0], env={k: str(v) for k, v in command.env.items()}, check=True)

    def init(self, place):
        return self.command(place, "init")

    def backup(self, place, source, phase):
        return self.command(place, "put", "--quiet", "--compression", "zstd:3", source)


PROGRAMS = (Backup, Restic, Rustic, Borg, Pipe, Bupstash)
