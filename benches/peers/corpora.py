"""The corpora: made once below a work directory, the same from the same machine, of a size that can be scaled.

`source` and `objects` are copies of what the machine has, without files that are there twice: duplicates would
flatter whoever finds them. The others are generated from fixed seeds.
"""

import json
import random
import shutil
from pathlib import Path

import generate
import gather
import mutate
import trees

# At scale 1.
SOURCE_FILES, SOURCE_BYTES = 110_000, 1_650_000_000
OBJECTS_BYTES = 1_600_000_000
RANDOM_BYTES = 1_500_000_000
SQL_BYTES = 1_600_000_000
TINY_FILES = 200_000


class Corpus:
    """A corpus on the disk: `data` is the tree, `about` says what it is made of."""

    def __init__(self, directory, name):
        self.name = name
        self.directory = directory / name
        # Every program meets the tree under this name.
        self.data = self.directory / "tree"
        self.mutation = mutate.Mutation(self.data, self.directory / "mutation")

    @property
    def about(self):
        file = self.directory / "about.json"
        return json.loads(file.read_text()) if file.exists() else None


def names():
    return list(MAKERS)


def make(directory, name, scale, sources=()):
    """The corpus of this name, made if it is not there."""
    corpus = Corpus(directory, name)
    if corpus.about and corpus.about["scale"] == scale:
        # A run that was cut off may have left the changed tree in place.
        corpus.mutation.revert()
        return corpus
    shutil.rmtree(corpus.directory, ignore_errors=True)
    corpus.data.mkdir(parents=True)
    made = MAKERS[name](corpus.data, scale, sources)
    changes = corpus.mutation.plan()
    about = {"name": name, "scale": scale, **made, "changes": changes}
    (corpus.directory / "about.json").write_text(json.dumps(about))
    return corpus


def source(data, scale, sources):
    return gather.gather(
        data, gather.text_roots(sources), gather.is_text, files=SOURCE_FILES * scale, size=SOURCE_BYTES * scale
    )


def objects(data, scale, sources):
    return gather.gather(data, gather.object_roots(), gather.is_object, files=0, size=OBJECTS_BYTES * scale)


def incompressible(data, scale, _):
    dice = random.Random(1)
    left, number = int(RANDOM_BYTES * scale), 0
    while left > 0:
        size = min(left, dice.randrange(1 << 20, 32 << 20))
        with open(data / f"media-{number:04}.bin", "wb") as file:
            for start in range(0, size, 1 << 20):
                file.write(dice.randbytes(min(1 << 20, size - start)))
        left, number = left - size, number + 1
    return counted(data, f"{number} files of random bytes, 1-32 MiB each")


def sql(data, scale, _):
    rows = generate.dump(data / "dump.sql", int(SQL_BYTES * scale))
    return counted(data, f"one dump as PostgreSQL writes it, {rows} generated rows of four tables")


def tiny(data, scale, _):
    files = int(TINY_FILES * scale)
    generate.tiny_files(data, files)
    return counted(data, "generated records, settings, log lines and random bytes, 100-2000 bytes each")


def counted(data: Path, made_of):
    files, size = trees.count(data)
    return {"files": files, "bytes": size, "made_of": made_of}


MAKERS = {"source": source, "tiny": tiny, "objects": objects, "random": incompressible, "sql": sql}
