"""Corpora that are generated: a database dump and tiny files. The same seed gives the same bytes."""

import random
import time

WORDS = (
    "account active address amount archive balance basic batch billing branch cancel card carrier cart category change "
    "channel checkout city client code color comment company complete contact content country coupon created credit "
    "currency customer daily data date default delivery device discount document draft due email empty error event "
    "expired export failed feature fee file final first flag folder free gift global grand group hidden history hold "
    "home image import index invoice item job label large last level limit line list local lock login long mail main "
    "manual member memo message method mobile mode month name network new next note notice number object offer office "
    "online open option order origin owner page paid parent partner password payment pending period person phone plan "
    "point policy post premium price primary print private product profile project public quantity queue quick quote "
    "rate read reason receipt record refund region release remote rental report request reset result retail return "
    "review role sale sample schedule score search season second section seller server service session setting shared "
    "ship shop short signup site size small source stage standard start state status stock store street strict subject "
    "submit summary supply support system table tag target task tax team template term test text theme ticket time title "
    "token total track trade transfer trial type unit update upload urgent usage user value vendor version view visit "
    "volume voucher wait wallet warehouse week weight wholesale width window work year zone"
).split()
STATES = ("new", "paid", "packed", "shipped", "delivered", "returned", "cancelled")
DOMAINS = ("example.com", "example.org", "mail.example.net", "shop.example")
EPOCH = 1_700_000_000


def dump(path, size):
    """Writes a dump of about so many bytes; returns how many rows it has."""
    dice = random.Random(2)
    rows = written = 0
    makers = (customer, order, item, event)
    with open(path, "w", buffering=1 << 20) as file:
        file.write("--\n-- PostgreSQL database dump\n--\n\nSET client_encoding = 'UTF8';\n\n")
        # Most of a shop's bytes are what happened, not who is there.
        for maker, share in zip(makers, (0.08, 0.27, 0.30, 0.35)):
            until = written + size * share
            file.write(f"COPY public.{maker.__name__}s FROM stdin;\n")
            number = 0
            while written < until:
                number += 1
                written += file.write(maker(dice, number))
            rows += number
            file.write("\\.\n\n\n")
    return rows


def customer(dice, number):
    first, last = words(dice, 2)
    return (
        f"{number}\t{first.title()} {last.title()}\t{first}.{last}{number}@{dice.choice(DOMAINS)}\t"
        f"+49 {dice.randrange(150, 180)} {dice.randrange(10**6, 10**8)}\t{moment(number * 7)}\tt\t\\N\n"
    )


def order(dice, number):
    return (
        f"{number}\t{int(dice.expovariate(1 / 50_000)) + 1}\t{dice.getrandbits(128):032x}\t{dice.choice(STATES)}\t"
        f"{dice.randrange(100, 40_000) / 100:.2f}\tEUR\t{moment(number * 3 + dice.randrange(60))}\t{sentence(dice)}\n"
    )


def item(dice, number):
    amount, price = dice.randrange(1, 5), dice.randrange(99, 9_999)
    return f"{number}\t{number // 3 + 1}\t{int(dice.paretovariate(1.2))}\t{amount}\t{price / 100}\t{amount * price / 100}\t0.19\n"


def event(dice, number):
    return (
        f"{number}\t{moment(number + dice.randrange(3))}\t{dice.randrange(1, 90_000)}\t"
        f'{{"kind": "{dice.choice(WORDS)}.{dice.choice(STATES)}", "ip": "10.{dice.randrange(256)}.{dice.randrange(256)}.'
        f'{dice.randrange(256)}", "ms": {dice.expovariate(0.02):.3f}, "request": "{dice.getrandbits(64):016x}"}}\n'
    )


def moment(seconds):
    return time.strftime("%Y-%m-%d %H:%M:%S+00", time.gmtime(EPOCH + seconds))


def words(dice, count):
    return dice.choices(WORDS, k=count)


def sentence(dice):
    return " ".join(words(dice, dice.randrange(2, 12)))


def tiny_files(root, count):
    """Files of 100 to 2000 bytes, a thousand to a directory."""
    dice = random.Random(3)
    kinds = (record, settings, log, noise)
    for number in range(count):
        directory = root / f"{number // 50_000:02}" / f"{number // 1000:04}"
        if number % 1000 == 0:
            directory.mkdir(parents=True)
        # Few are long: sizes spread evenly over their magnitude.
        size = int(100 * 20 ** dice.random())
        kind = dice.choices(kinds, (5, 3, 3, 1))[0]
        with open(directory / f"{number:06}.{kind.__name__}", "wb") as file:
            file.write(kind(dice, number, size)[:size].ljust(100))


def record(dice, number, size):
    text = f'{{"id": {number}, "key": "{dice.getrandbits(64):016x}", "name": "{sentence(dice)}", "rows": ['
    while len(text) < size:
        text += f'{{"{dice.choice(WORDS)}": {dice.randrange(10**6)}, "at": "{moment(dice.randrange(10**7))}"}}, '
    return text.encode()


def settings(dice, number, size):
    text = f"# {sentence(dice)}\n[{dice.choice(WORDS)}.{number}]\n"
    while len(text) < size:
        text += f"{dice.choice(WORDS)}_{dice.choice(WORDS)} = {dice.choice((dice.randrange(1000), 'true', sentence(dice)))}\n"
    return text.encode()


def log(dice, number, size):
    text = ""
    while len(text) < size:
        text += f"{moment(number + len(text))} {dice.choice(('INFO', 'WARN', 'DEBUG'))} {dice.choice(WORDS)}: {sentence(dice)}\n"
    return text.encode()


def noise(dice, number, size):
    return dice.randbytes(size)
