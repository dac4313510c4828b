"""One per cent of a tree's files changed: edited, appended to, new, deleted, renamed. Done and undone in place.

In place, because programs know a file by its path, inode and times: a changed copy of the tree would be a new tree to
them. What is new is written once, beforehand; doing and undoing are renames, so that files that do not change keep
their inodes and times. Both may be cut off and done again.
"""

import json
import os
import random
import shutil
from pathlib import Path

SHARE = 0.01
# Of a hundred changes.
KINDS = {"edited": 45, "appended": 20, "new": 15, "deleted": 10, "renamed": 10}
BLOCK = 1 << 20


class Mutation:
    """The changes of one tree: what is new stands in `new`, what is replaced goes to `old`."""

    def __init__(self, tree, directory):
        self.tree = Path(tree)
        self.directory = Path(directory)

    @property
    def changes(self):
        file = self.directory / "changes.json"
        return json.loads(file.read_text()) if file.exists() else []

    def plan(self):
        """Chooses the files and writes what is new; returns how many of each kind."""
        for name in ("new", "old"):
            (self.directory / name).mkdir(parents=True)
        files = sorted(
            os.path.relpath(os.path.join(place, name), self.tree)
            for place, _, names in os.walk(self.tree)
            for name in names
        )
        dice = random.Random(4)
        chosen = dice.sample(files, max(1, round(len(files) * SHARE)))
        # The first is edited whatever the dice say: a tree of a single file is a dump, and dumps change inside.
        kinds = ["edited", *dice.choices(list(KINDS), list(KINDS.values()), k=len(chosen) - 1)]
        changes = []
        for number, (path, kind) in enumerate(zip(chosen, kinds)):
            fresh = self.directory / "new" / str(number)
            if kind in ("edited", "appended"):
                {"edited": edit, "appended": append}[kind](self.tree / path, fresh, dice)
            elif kind == "new":
                # Next to a file that is there, of its size, of content that nobody has seen.
                size = min((self.tree / path).stat().st_size, BLOCK)
                fresh.write_bytes(text(dice, size))
                path += ".new"
            elif kind == "renamed":
                changes.append({"kind": kind, "path": path, "to": path + ".renamed"})
                continue
            changes.append({"kind": kind, "path": path, "number": number})
        (self.directory / "changes.json").write_text(json.dumps(changes))
        return {kind: sum(change["kind"] == kind for change in changes) for kind in KINDS}

    def apply(self):
        for change in self.changes:
            path = self.tree / change["path"]
            if change["kind"] == "renamed":
                move(path, self.tree / change["to"])
                continue
            old, new = (self.directory / name / str(change["number"]) for name in ("old", "new"))
            if change["kind"] != "new" and not old.exists():
                move(path, old)
            move(new, path)

    def revert(self):
        for change in self.changes:
            path = self.tree / change["path"]
            if change["kind"] == "renamed":
                move(self.tree / change["to"], path)
                continue
            old, new = (self.directory / name / str(change["number"]) for name in ("old", "new"))
            if change["kind"] == "new":
                if not new.exists():
                    move(path, new)
            elif old.exists():
                if change["kind"] != "deleted" and not new.exists():
                    move(path, new)
                move(old, path)


def move(path, to):
    if path.exists():
        path.rename(to)


def edit(path, to, dice):
    """A copy with a few words put into one in a hundred of its blocks, at least into one."""
    blocks = max(1, -(-path.stat().st_size // BLOCK))
    chosen = set(dice.sample(range(blocks), max(1, round(blocks * SHARE))))
    with open(path, "rb") as file, open(to, "wb") as out:
        for number in range(blocks):
            block = file.read(BLOCK)
            if number in chosen:
                middle = len(block) // 2
                block = block[:middle] + text(dice, 80) + block[middle:]
            out.write(block)
    shutil.copymode(path, to)


def append(path, to, dice):
    """A copy with a few lines at its end."""
    shutil.copy(path, to)
    with open(to, "ab") as out:
        out.write(text(dice, dice.randrange(100, 2000)))


def text(dice, size):
    """Lines of letters, which compress as prose does."""
    words = ["".join(dice.choices("etaoinshrdlucmfwypvbgkqjxz", k=dice.randrange(2, 10))) for _ in range(200)]
    out = ""
    while len(out) < size:
        out += dice.choice(words) + dice.choice("      \n")
    return out[:size].encode()
