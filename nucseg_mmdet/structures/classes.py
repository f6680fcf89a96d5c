"""Classes of nuclei: their names and colors, the same from the checkpoint to every file."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from nucseg_mmdet.utils.errors import UserError

# Told apart from each other, and from pink and purple: so no blue, purple, pink or red first.
COLORS = (
    (255, 225, 0),
    (0, 205, 80),
    (0, 210, 255),
    (255, 130, 0),
    (245, 245, 245),
    (180, 255, 120),
    (50, 90, 255),
    (255, 70, 70),
)
MOST_CLASSES, MOST_LETTERS = 255, 64  # a label is a byte; DICOM's names have 64 letters


class NucleusClass(NamedTuple):
    """A type of nuclei.

    Attributes:
        name: as it stands in files.
        color: R, G, B, 0 to 255.
    """

    name: str
    color: tuple[int, int, int]


# Models of one class know it as 'nucleus'; QuPath's users, and their earlier results, as this.
ONE_CLASS = (NucleusClass('Nucleus', (220, 20, 60)),)


def make_classes(names: Any, palette: Any, source: str) -> tuple[NucleusClass, ...]:
    """Make classes of what a model's ``dataset_meta`` says.

    Args:
        names: of the classes, in the order of the model's labels.
        palette: R, G, B of each; colors of the project's own unless there are as many.
        source: what messages call the file.

    Raises:
        UserError: the names are no different, printable texts.
    """
    if (
        not isinstance(names, Sequence)
        or isinstance(names, str)
        or not 0 < len(names) <= MOST_CLASSES
    ):
        raise UserError(f'{source}: classes are {names!r:.60}, expected 1 to {MOST_CLASSES} names')
    for name in names:
        if not isinstance(name, str) or not 0 < len(name) <= MOST_LETTERS or not name.isprintable():
            raise UserError(
                f'{source}: a class is named {name!r:.80}, expected up to {MOST_LETTERS} letters'
            )
    if len(set(names)) < len(names):
        raise UserError(f'{source}: classes are {names!r:.60}, expected different names')
    if tuple(names) == ('nucleus',):
        return ONE_CLASS
    colors = _read_palette(palette, len(names))
    return tuple(map(NucleusClass, names, colors))


def _read_palette(palette: Any, count: int) -> list[tuple[int, int, int]]:
    own = [COLORS[index % len(COLORS)] for index in range(count)]
    if not isinstance(palette, Sequence) or len(palette) != count:
        return own
    try:
        colors = [(int(red), int(green), int(blue)) for red, green, blue in palette]
    except (TypeError, ValueError):
        return own
    return colors if all(0 <= part <= 255 for color in colors for part in color) else own
