"""Damage of files: bytes as disks and networks leave them, and JSON as other programs write it.

``damage`` takes bytes and a random generator, and gives bytes and a word for what was done.
"""

import copy
import json
import re
from collections.abc import Callable

import numpy as np

HEADER = 512  # bytes in which most formats have their sizes
EXTREMES = (b'\x00', b'\x01', b'\x7f', b'\x80', b'\xff')
NUMBERS = (
    *('0', '-1', '1e999', '-1e999', 'NaN', '1_0', '0.5', '4294967296', '9' * 30, '9' * 5_000),
    *('null', 'true', '""', '"x"', '[]', '{}', '[[[[]]]]'),
)
VALUES = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, 1e308, 0.5, float('nan'), float('inf')),
    *(
        '',
        'x',
        '1',
        '../../x',
        '/etc/passwd',
        'a\n\x1b[31mb',
        '\ud800',
        'a\0b',
        '=1+1',
        'x' * 10_000,
    ),
    *([], {}, [[]], [None], [1, 2, 3], {'a': 1}),
)
Damage = Callable[[bytes, np.random.Generator], tuple[str, bytes]]


def flip(data: bytes, rng: np.random.Generator, within: int | None = None) -> tuple[str, bytes]:
    place, bit = int(rng.integers(min(len(data), within or len(data)))), int(rng.integers(8))
    changed = bytearray(data)
    changed[place] ^= 1 << bit
    return f'bit {bit} of byte {place} flipped', bytes(changed)


def flip_header(data: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    return flip(data, rng, HEADER)


def truncate(data: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    length = int(rng.choice([0, 1, len(data) - 1, rng.integers(len(data))]))
    return f'cut to {length} bytes', data[:length]


def overwrite(data: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    start, length = int(rng.integers(len(data))), int(2 ** rng.uniform(1, 12))
    length = min(length, len(data) - start)
    zeros = bool(rng.integers(2))
    block = bytes(length) if zeros else rng.bytes(length)
    what = 'zeros' if zeros else 'noise'
    return f'{length} bytes of {what} at {start}', data[:start] + block + data[start + length :]


def set_number(data: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """Set an aligned number of the header to an extreme."""
    size = int(rng.choice([1, 2, 4, 8]))
    start = int(rng.integers(max(1, min(len(data), HEADER) // size))) * size
    byte = EXTREMES[rng.integers(len(EXTREMES))]
    return f'{size} bytes at {start} are {byte.hex()}', data[:start] + byte * size + data[
        start + size :
    ]


def splice(data: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """Take a block out, put one in twice, or move one."""
    start, other = (int(rng.integers(len(data))) for _ in range(2))
    block = data[start : start + int(2 ** rng.uniform(1, 12))]
    without = data[:start] + data[start + len(block) :]
    match rng.integers(3):
        case 0:
            return f'{len(block)} bytes at {start} missing', without
        case 1:
            return f'{len(block)} bytes of {start} also at {other}', data[:other] + block + data[
                other:
            ]
        case _:
            moved = without[:other] + block + without[other:]
            return f'{len(block)} bytes of {start} moved', moved


def edit_number(data: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """Put something else in place of a number of a text."""
    found = list(re.finditer(rb'-?\d+(\.\d+)?', data))
    if not found:
        return flip(data, rng)
    match, other = found[rng.integers(len(found))], NUMBERS[rng.integers(len(NUMBERS))]
    start, end = match.span()
    return f'{other:.20} at {start}', data[:start] + other.encode() + data[end:]


def edit_json(data: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """Change, leave out or repeat one value of a JSON text."""
    content = json.loads(data)
    places: list[tuple[object, object]] = []
    _collect(content, places)
    if not places:
        return 'null', b'null'
    parent, key = places[rng.integers(len(places))]
    match rng.integers(4):
        case 0:
            del parent[key]
            what = f'without {key!r:.40}'
        case 1 if isinstance(parent, list):
            parent.append(copy.deepcopy(parent[key]))
            what = f'item {key} twice'
        case _:
            parent[key] = VALUES[rng.integers(len(VALUES))]
            what = f'{key!r:.40} is {parent[key]!r:.40}'
    return what, json.dumps(content).encode()


def _collect(node: object, places: list[tuple[object, object]], limit: int = 40) -> None:
    """List the places of a tree; of long lists the first items, else numbers crowd out the rest."""
    items = node.items() if isinstance(node, dict) else enumerate(node[:limit])
    for key, value in list(items):
        places.append((node, key))
        if isinstance(value, dict | list):
            _collect(value, places, 6 if isinstance(value, list) and len(value) > 20 else limit)


BYTES: tuple[Damage, ...] = (flip, flip_header, truncate, overwrite, set_number, splice)
TEXT: tuple[Damage, ...] = (flip, truncate, overwrite, splice, edit_number, edit_number)
JSON: tuple[Damage, ...] = (flip, truncate, splice, edit_number, edit_json, edit_json, edit_json)
