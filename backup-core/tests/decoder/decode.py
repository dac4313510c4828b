"""Reads, restores and checks backup repositories of format version 1; written from FORMAT.md alone."""

import argparse
import base64
import hmac
import json
import os
import re
import stat
from collections import defaultdict
from contextlib import contextmanager, suppress
from functools import cache, cached_property, lru_cache
from hashlib import sha256
from itertools import islice, pairwise
from pathlib import Path
from struct import pack, unpack

from argon2.low_level import Type, hash_secret_raw
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from zstandard import ZstdDecompressor, frame_content_size

SLOT, CONFIG, DATA, META, INDEX, SNAPSHOT, SET, LOG, SESSION = range(9)  # types of objects; slots have none, so 0
ID, PART, HASH = "[0-9a-f]{32}", "[A-Za-z0-9_-][A-Za-z0-9._-]*", r"([0-9a-f]{2})/\1[0-9a-f]{62}"
KEYS = [f"keys/[1-9][0-9]*/{ID}", "config", f"data/{HASH}", f"meta/{HASH}", "index/[0-9a-f]{64}", f"snapshots/{ID}"]
KEYS += [f"sets/{ID}", f"logs/{PART}/{PART}/{PART}/(0|[1-9][0-9]*)", f"control/sessions/{ID}/(open|decision)"]
MIB, U32, U64 = 1 << 20, (1 << 32) - 1, (1 << 64) - 1
OBJECT_MAX = {CONFIG: MIB, SESSION: MIB, SNAPSHOT: 16 * MIB, SET: 16 * MIB}
FILE, FOLDER, SYMLINK, HARD_LINK, FIFO, SOCKET, CHARACTER, BLOCK = range(8)  # kinds of entries
NODES = {FIFO: stat.S_IFIFO, SOCKET: stat.S_IFSOCK, CHARACTER: stat.S_IFCHR, BLOCK: stat.S_IFBLK}

def need(condition, complaint):
    if not condition:
        raise ValueError(complaint)

@contextmanager
def about(what):
    try:
        yield
    except Exception as e:  # whatever a library finds wrong with stored bytes is damage
        raise ValueError(f"{what}: {e if type(e) is ValueError else repr(e)}") from e

def derive(secret, salt, label, context=b"", n=64):
    return HKDF(SHA256(), n, salt, label + b"\0" + context).derive(bytes.fromhex(secret))

class Cursor:  # reads a binary structure
    def __init__(self, data):
        self.data, self.at, self.name, self.seconds = data, 0, b"", 0  # the last two: of the entry before
    def take(self, n):
        self.at += n
        need(self.at <= len(self.data), "cut short")
        return self.data[self.at - n : self.at]
    def uint(self, n=1):
        return int.from_bytes(self.take(n), "little")
    def varint(self, limit=U64):
        value, shift, byte = 0, 0, 0x80
        while byte & 0x80:
            byte = self.uint()
            value, shift = value | (byte & 0x7F) << shift, shift + 7
            need((byte or shift == 7) and value <= limit, "a number is too large or not in its shortest form")
        return value
    def bytes(self, limit=1 << 16):
        return self.take(self.varint(limit))
    def path(self, shared=0):
        name = self.name[:shared] + self.bytes()
        need(not {b"", b".", b".."} & {*name.split(b"/")} and b"\0" not in name, f"the name {name[:80]} is refused")
        return name
    def reference(self):
        return self.take(32), self.varint(8 * MIB)

class Entry:  # a row of a page of entries
    def __init__(self, cursor):
        self.name = cursor.name = cursor.path(cursor.varint(len(cursor.name)))
        flags = cursor.uint()
        self.kind, self.sparse, self.posix = flags & 15, flags & 0x80, None
        if flags & 0x10:
            mode, uid, gid, zigzag = map(cursor.varint, (0o7777, U32, U32, U64))
            cursor.seconds = (cursor.seconds + (zigzag >> 1 ^ -(zigzag & 1)) + (1 << 63) & U64) - (1 << 63)
            self.posix = mode, uid, gid, cursor.seconds * 10**9 + (nanoseconds := cursor.uint(4))
            need(nanoseconds < 10**9, "too many nanoseconds")
        attributes = range(cursor.varint(4096) if flags & 0x20 else 0)
        self.attributes = [(cursor.bytes(), cursor.bytes(1 << 17)) for _ in attributes]
        need(all(a[0] < b[0] for a, b in pairwise(self.attributes)), "attributes do not ascend")
        self.stamp = cursor.bytes(1 << 17) if flags & 0x40 else b""
        self.target = {SYMLINK: cursor.bytes, HARD_LINK: cursor.path}.get(self.kind, bytes)()
        self.device = [cursor.varint(U32) for _ in range(2 if self.kind in (CHARACTER, BLOCK) else 0)]
        form = cursor.uint() if self.kind == FILE else 0
        need(self.kind <= BLOCK and form <= 3, "an entry or content of unknown kind")
        self.inline = cursor.bytes(96) if form == 1 else b""
        self.chunks = [cursor.reference() for _ in range(cursor.varint(32) if form == 2 else 0)]
        self.tree = (cursor.varint(), cursor.varint(), cursor.uint(), cursor.reference()) if form == 3 else None

class Object:  # in the envelope; header and directory are read at once, frames when they are asked for
    def __init__(self, repo, kind, key):
        self.repo, self.kind, self.key, self.path = repo, kind, key, repo.root / key
        with about(key):
            self.size = self.path.stat().st_size
            need(106 < self.size <= OBJECT_MAX.get(kind, 64 * MIB), "the object is too small or too large")
            self.read_header(Cursor(self.read(0, 4096)))
            self.read_directory()
    def read(self, offset, n):
        with self.path.open("rb") as file:
            return os.pread(file.fileno(), n, offset)
    def read_header(self, cursor):
        magic, kind, length, epoch, identity = unpack("<9sBHI16s", cursor.take(32))
        salt, commitment, encapsulation = cursor.take(32), cursor.take(32), cursor.uint(2)
        need(magic == b"\x89BKP\r\n\x1a\n\1" and not encapsulation, "no object of format version 1")
        *optional, seal = (cursor.take(cursor.uint()).decode() for _ in range(cursor.uint()))
        self.header, self.optional = cursor.data[: cursor.at], len(optional)
        need({*optional} <= {"zstd"}, f"a transform is not known: {', '.join(optional)}")
        own = self.kind, self.repo.identity, bool(self.repo.epoch), cursor.at
        need(own == (kind, identity, bool(epoch), length), "type, repository, epoch or length is wrong")
        need(seal == ("aes-256-gcm" if epoch else "sha256"), f"the seal cannot be {seal}")
        context = identity + bytes([kind])
        okm = salt + sha256(b"backup unprotected object v1" + context + salt).digest()
        if epoch:
            okm = derive(self.repo.secrets(epoch)["epoch_secret"], salt, b"backup v1 object", context)
        self.secret = okm[:32]  # without encryption the salt, which must be as fresh
        need(hmac.compare_digest(commitment, okm[32:]), "the commitment is wrong")
    def read_directory(self):
        block, stored, plain, mask, count, end = unpack("<3sIIBI6s", self.read(self.size - 22, 22))
        need((block, end) == (bytes(3), b"\3\0BKPE"), "the end is damaged, or the object is signed")
        start, at = self.size - 22 - stored, len(self.header)
        need(start >= at and count <= 1 << 16 and plain <= 64 * MIB, "the directory is too large")
        cursor = Cursor(self.unseal((start, stored, plain, mask), count, pack("<IH", count, len(block))))
        limits, most = (16 * MIB + 65536, 16 * MIB), MIB if self.kind in (DATA, META) else 0  # most: chunks
        need(cursor.varint() == count, "the numbers of frames differ")
        shapes = [(*map(cursor.varint, limits), cursor.uint(), cursor.varint(most)) for _ in range(count)]
        lengths = [cursor.varint(8 * MIB) for *_, chunks in shapes for _ in range(chunks)]
        rows = zip([cursor.take(16) for _ in lengths], lengths)
        need(cursor.at == len(cursor.data), "bytes are left over")
        self.frames, self.chunks = [], []  # chunks: short id, frame, offset in its plaintext, length
        for ordinal, (stored, plain, mask, count) in enumerate(shapes):
            self.frames.append((at, stored, plain, mask))
            at, offset = at + stored, 0
            for short, length in islice(rows, count):
                self.chunks.append((short, ordinal, offset, length))
                offset += length
            need(offset == plain or not count, "the chunks of a frame do not add up")
        need(at == start, "the lengths do not add up")
    def unseal(self, frame, ordinal, tail=b""):
        offset, stored, plain, mask = frame
        associated = sha256(self.header).digest() + pack("<IIBB", ordinal, plain, mask, bool(tail)) + tail
        sealed, bits = self.read(offset, stored), [bit for bit in range(self.optional) if mask >> bit & 1]
        need(mask >> self.optional == 0, "the mask goes beyond the chain")
        if self.repo.epoch:
            data = AESGCM(self.secret).decrypt(pack(">QI", 0, ordinal), sealed, associated)
        else:
            need(sha256(associated + (data := sealed[:-32])).digest() == sealed[-32:], "the digest is wrong")
        for bit in reversed(bits):
            limit = plain if bit == bits[0] else 2 * plain + 65536
            need(frame_content_size(data) <= limit, "a frame holds more than it says")  # -1: it does not say
            data = ZstdDecompressor().decompress(data, max_output_size=limit + 1, allow_extra_data=False)
        need(len(data) == plain, "the plain length is wrong")
        return data
    @lru_cache(maxsize=8)
    def open(self, ordinal):
        with about(f"{self.key}, frame {ordinal}"):
            return self.unseal(self.frames[ordinal], ordinal)

class Repository:  # the objects below a directory, and the keys to them
    def __init__(self, root, key_kind=None, key=None):
        self.root, self.key_kind, self.key = root, key_kind, key
        paths = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
        self.keys = [(kind, path) for kind, form in enumerate(KEYS) for path in paths if re.fullmatch(form, path)]
        self.epoch, self.identity = unpack("<12xI16s", (root / "config").read_bytes()[:32])
        need(self.epoch or not key, "a key is given, but the repository says that it is not encrypted")
        need(not self.document(CONFIG, "config")["required_features"], "it requires features that are not known")
    def slot(self, key, secrets=None):  # its secrets and slot key; secrets given serve to check its second line
        with about(key):
            raw, (_, number, recipient), slot_key = (self.root / key).read_bytes(), key.split("/"), None
            lines, epoch = re.fullmatch(rb"([^\n]+\n)mac ([0-9a-f]{64})\n", raw), pack(">I", int(number))
            slot = json.loads(lines[1].decode())
            own = [*map(slot.get, ("format", "type", "repository", "epoch")), slot["recipient"]["id"]]
            need(own == [1, "key-slot", self.identity.hex(), int(number), recipient], "it is not what its key says")
            if slot["recipient"]["kind"] == self.key_kind:
                opened, slot_key = self.unwrap(slot, self.identity + epoch + bytes.fromhex(recipient))
                secrets = opened or secrets
            if secrets:
                mac_key = derive(secrets["epoch_secret"], self.identity, b"backup v1 slot mac", epoch, 32)
                need(lines[2].decode() == hmac.digest(mac_key, lines[1], "sha256").hex(), "the second line is wrong")
            return secrets, slot_key
    def unwrap(self, slot, context):
        salt, secret, cost = bytes.fromhex(slot["kdf"]["salt"]), self.key, slot["kdf"].get("cost")
        need(slot["kdf"]["name"] == ("argon2id" if cost else "hkdf-sha256"), "the key derivation is not known")
        if cost:
            memory, passes, lanes = map(cost.get, ("memory_kib", "passes", "lanes"))
            need(1 <= passes <= 16 and 1 <= lanes <= 16 and 8 * lanes <= memory <= MIB, "costs beyond the bounds")
            secret = hash_secret_raw(self.key, salt, passes, memory, lanes, 32, Type.ID, 0x13)
        okm = derive(secret.hex(), salt, b"backup v1 slot key", context)
        if not hmac.compare_digest(okm[32:], bytes.fromhex(slot["commitment"])):
            return None, None
        sealed = base64.b64decode(slot["wrapped"], validate=True)
        secrets = json.loads(AESGCM(okm[:32]).decrypt(bytes(12), sealed, b"backup v1 slot\0" + context))
        need(all(secrets[name] == slot[name] for name in ("format", "repository", "epoch")), "secrets of another slot")
        return secrets, okm[:32]
    @cache
    def secrets(self, epoch):
        for kind, key in self.keys:
            with suppress(ValueError):  # another slot may do
                if kind == SLOT and key.startswith(f"keys/{epoch}/") and (secrets := self.slot(key)[0]):
                    return secrets
        raise ValueError(f"no key slot of epoch {epoch} opens with this key")
    def chunk_id(self, data):
        if not self.epoch:
            return blake3(data).digest()
        name, secret = map(self.secrets(self.epoch).get, ("chunk_id", "identity_secret"))
        key = derive(secret, self.identity, b"backup v1 chunk id " + name.encode(), n=32)
        return blake3(data, key=key).digest() if name == "blake3" else hmac.digest(key, data, "sha256")
    @cached_property
    def places(self):
        places = defaultdict(list)
        for kind, key in self.keys:
            with suppress(ValueError):  # who needs this pack will miss it
                for short, *place in (found := Object(self, kind, key)).chunks if kind in (DATA, META) else ():
                    places[short].append((found, *place))
        return places
    def chunk(self, reference):
        wanted, size = reference
        for found, ordinal, offset, length in self.places.get(wanted[:16], ()):
            with suppress(ValueError):  # another place may do
                data = found.open(ordinal)[offset : offset + length]
                if length == size and self.chunk_id(data) == wanted:
                    return data
        raise ValueError(f"chunk {wanted.hex()} is missing or damaged")
    def walk(self, tree_kind, total, rows, level, reference, first=b"", bound=b""):
        cursor, kind, found = Cursor(self.chunk(reference)), tree_kind + bool(level), []
        need(cursor.uint() == kind and 0 <= level <= 8, "a page is not of the kind that belongs in its place")
        for _ in range(cursor.varint(1 << 16)):
            name, child = cursor.path() if kind == 2 else b"", Entry(cursor) if kind == 1 else cursor.reference()
            below = cursor.varint() if level else 1
            size = cursor.varint() if kind == 4 else child[1] if kind == 3 else 0
            found.append((name or cursor.name, child, below, size))
        need(cursor.at == len(cursor.data), "bytes are left over")
        names, _, below, sizes = zip(*found)  # an empty page is an error here
        need((sum(below), sum(sizes)) == (rows, total), "the rows or bytes below a page do not add up")
        keys = [name.replace(b"/", b"\0") for name in (*names, bound) if name]
        need(first in (b"", names[0]) and all(a < b for a, b in pairwise(keys)), "names are out of order")
        need(kind < 3 or all(sizes), "a part of content is empty")
        for (name, child, below, size), following in zip(found, (*names[1:], bound)):
            yield from self.walk(tree_kind, size, below, level - 1, child, name, following) if level else [child]
    def entries(self, snapshot):
        for tree in filter(None, (snapshot.get("tree"), snapshot.get("trailing"))):
            yield from self.walk(1, 0, tree["rows"], tree["levels"], (bytes.fromhex(tree["id"]), tree["len"]))
    def document(self, kind, key):  # or the head of a log segment
        found, (_, *part) = Object(self, kind, key), key.split("/")
        with about(key):
            need(len(found.frames) == 1 or kind == LOG, "a document has one frame")
            document = json.loads(found.open(0).decode())
            name = "session" if kind == SESSION or document.get("fence") else "id"
            own = {"repository": self.identity.hex()} if kind in (CONFIG, SNAPSHOT, LOG) else {}
            own |= dict(zip(("lineage", "timeline") if kind == LOG else (name,), part[kind == SESSION :]))
            need(own.items() <= document.items(), "the document is not what its key says")
            return document

def extract(repo, snapshot, target):
    document, root = repo.document(SNAPSHOT, f"snapshots/{snapshot}"), os.path.realpath(os.fsencode(target))
    folders, _ = [], os.umask(0o077)
    need(not document.get("fence"), f"{snapshot} is a fence")

    def inside(name):
        above = os.path.dirname(path := os.path.join(root, name))
        need(os.path.realpath(above) == above, f"{name} is beyond a symbolic link")
        os.makedirs(above, exist_ok=True)
        return path

    for entry in repo.entries(document):
        path = inside(entry.name + b"/" * (entry.kind == FOLDER))  # with the slash it makes the folder
        if entry.kind == FOLDER:
            folders.append((entry, path))
        if entry.kind == HARD_LINK:
            os.link(inside(entry.target), path, follow_symlinks=False)
        if entry.kind in (FOLDER, HARD_LINK) or entry.device and os.geteuid() != 0:
            continue
        if entry.kind == SYMLINK:
            os.symlink(entry.target, path)
        elif entry.kind in NODES:
            os.mknod(path, NODES[entry.kind] | 0o600, os.makedev(*entry.device or (0, 0)))
        else:
            with open(path, "xb") as file:
                file.write(entry.inline)
                for data in map(repo.chunk, repo.walk(3, *entry.tree) if entry.tree else entry.chunks):
                    file.write(data) if data.strip(b"\0") or not entry.sparse else file.seek(len(data), os.SEEK_CUR)
                file.truncate()
        adorn(entry, path)
    for entry, path in reversed(folders):
        adorn(entry, path)

def adorn(entry, path):  # in this order, because each step may undo those after it
    if entry.posix and os.geteuid() == 0:
        os.chown(path, *entry.posix[1:3], follow_symlinks=False)
    for name, value in entry.attributes:
        with suppress(OSError):  # where the system does not let it
            if name.startswith(b"xattr:"):
                os.setxattr(path, name[6:], value, follow_symlinks=False)
    if entry.posix:
        os.chmod(path, entry.posix[0]) if entry.kind != SYMLINK else None
        os.utime(path, ns=(entry.posix[3],) * 2, follow_symlinks=False)

class Checker:  # opens every object and collects what is wrong
    def __init__(self, repo):
        self.repo, self.problems, self.pairs, self.packs, self.counts = repo, [], [], {}, {"frames": 0, "chunks": 0}
        self.chunks, self.named = set(), defaultdict(set)  # named: places in a pack, by index segments
    def run(self):
        for kind, key in self.repo.keys:
            try:
                with about(key):
                    self.slot(key) if kind == SLOT else self.object(kind, key)
            except ValueError as e:
                self.problems.append(str(e))
        differ = (found.key for found, places in self.named.items() if places != set(found.chunks))
        self.problems += [f"{key}: index segments and its directory differ" for key in differ]
        repeated = len(self.pairs) - len(set(self.pairs))
        self.problems += [f"{repeated} pairs of key and nonce are repeated"] * bool(repeated)
        self.counts |= {"objects": len(self.repo.keys), "seals": len(self.pairs), "repeated_nonces": repeated}
        return self.counts | {"problems": self.problems}
    def slot(self, key):
        slot_key = self.repo.slot(key, self.repo.secrets(int(key.split("/")[1])))[1]
        self.pairs += [(slot_key, 0)] if slot_key else []
    def object(self, kind, key):
        found, name = Object(self.repo, kind, key), key.split("/")[-1]
        self.pairs += [(found.secret, ordinal) for ordinal in range(len(found.frames) + 1)]
        self.packs[name], digest = found, sha256(found.path.read_bytes()).hexdigest()
        need(kind not in (DATA, META, INDEX) or digest == name, "its SHA-256 is not its name")
        self.counts["frames"] += len([found.open(ordinal) for ordinal in range(len(found.frames))])
        for short, ordinal, offset, length in found.chunks:
            whole = self.repo.chunk_id(found.open(ordinal)[offset : offset + length])
            need(whole[:16] == short, f"frame {ordinal}: a chunk is not what its id says")
            self.chunks.add((whole, length))
        self.counts["chunks"] += len(found.chunks)
        if kind == INDEX:
            self.index(found)
        document = self.repo.document(kind, key) if kind not in (DATA, META, INDEX) else None
        for entry in self.repo.entries(document) if kind == SNAPSHOT else ():
            references = self.repo.walk(3, *entry.tree) if entry.tree else entry.chunks
            need(self.chunks.issuperset(references), f"{entry.name} has chunks that are in no pack")
        if kind == LOG:
            data = b"".join(map(found.open, range(1, len(found.frames))))
            own = [len(data), self.repo.chunk_id(data).hex()]
            need(own == [document["bytes"], document["plain_hash"]], "the bytes are not what the head says")
    def index(self, found):
        cursor, packs, last = Cursor(found.open(0)), [], b""
        cursor.take(16), cursor.take(32 * cursor.varint())  # the session, and segments replaced
        records, heads = cursor.varint(), [(cursor.take(16), cursor.varint(4096)) for _ in range(cursor.varint())]
        need(cursor.at == len(cursor.data), "bytes are left over")
        need(len(found.frames) == 1 + records + len(heads), "another number of frames than the head says")
        for ordinal in range(1, 1 + records):
            cursor = Cursor(found.open(ordinal))
            while cursor.at < len(cursor.data):
                packs.append(self.packs[cursor.take(32).hex()])
                own = packs[-1].kind, packs[-1].size, packs[-1].header, [frame[1:] for frame in packs[-1].frames]
                shape = cursor.uint(), cursor.varint(), cursor.bytes()
                frames = [(cursor.varint(), cursor.varint(), cursor.uint()) for _ in range(cursor.varint())]
                need((*shape, frames) == own, f"{packs[-1].key} is another")
        for ordinal, head in enumerate(heads, 1 + records):
            cursor = Cursor(found.open(ordinal))
            count = cursor.varint(4096)
            shorts = [last] + [cursor.take(16) for _ in range(count)]
            columns = [[cursor.varint(U32) for _ in range(count)] for _ in range(4)]
            need(cursor.at == len(cursor.data), "bytes are left over")
            need((shorts[1], count) == head and shorts == sorted(shorts), "rows are out of order")
            last = shorts[-1]
            for short, number, *place in zip(shorts[1:], *columns):
                if number < len(packs):
                    self.named[packs[number]].add((short, *place))

def listing(repo):
    documents = [(kind, repo.document(kind, key)) for kind, key in repo.keys if kind in (SNAPSHOT, SET)]
    snapshots = [found for kind, found in documents if kind == SNAPSHOT and not found.get("fence")]
    shown = "id", "time", "source", "label", "tags", "entries", "outcome"
    report = {"snapshots": [{name: found.get(name) for name in shown} for found in snapshots]}
    logs = sorted({"/".join(key.split("/")[1:3]) for kind, key in repo.keys if kind == LOG})
    return report | {"sets": [found for kind, found in documents if kind == SET], "logs": logs}

def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("repo", "--password-file", "--key-file"):
        parser.add_argument(name, type=Path)
    parser.add_argument("command", choices=("list", "extract", "check"))
    parser.add_argument("arguments", nargs="*", help="SNAPSHOT DIR")
    args, key = parser.parse_args(), ()
    try:
        with about("decode.py"):
            if args.password_file:
                key = "passphrase", args.password_file.read_bytes().removesuffix(b"\n")
            if args.key_file:
                key = "key-file", base64.b64decode(args.key_file.read_bytes().rstrip(), validate=True)
            actions = {"list": listing, "extract": extract, "check": lambda repo: Checker(repo).run()}
            report = actions[args.command](Repository(args.repo, *key), *args.arguments) or {}
    except ValueError as e:
        raise SystemExit(str(e)) from e
    print(json.dumps(report, indent=1)) if report else None
    raise SystemExit(bool(report.get("problems")))

if __name__ == "__main__":
    main()
