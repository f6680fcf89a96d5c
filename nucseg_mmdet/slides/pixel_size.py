"""Microns per pixel from what image files say of themselves."""

import math
import re
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import NamedTuple
from xml.etree import ElementTree

from nucseg_mmdet.utils.errors import UserError

# Microns per pixel. Between the finest scanners (0.1) and an overview photograph of a slide.
# 72, 96 and 300 dpi, which programs write when they know nothing, are 353, 265 and 85.
MIN_MPP, MAX_MPP = 0.05, 20.0
ASSUMED_MPP = 0.25
MODEL_MPP = 0.25  # that the models are trained at
AT_ONE = 10.0  # microns per pixel at magnification 1, by custom: 0.5 at x20, 0.25 at x40
MAX_UNEVEN = 0.01  # relative difference of two sizes that is taken for rounding
# Units of length by their symbols, in OME-XML and in what ImageJ writes.
MICRONS = {
    'm': 1e6,
    'dm': 1e5,
    'cm': 1e4,
    'mm': 1e3,
    'µm': 1.0,  # the micro sign, U+00B5, as OME writes it
    'μm': 1.0,  # the Greek letter, U+03BC
    'um': 1.0,
    'nm': 1e-3,
    'pm': 1e-6,
    '\u00c5': 1e-4,  # angstrom: the letter, and the sign of its own
    '\u212b': 1e-4,
    'in': 25_400.0,
    'thou': 25.4,
    'pt': 25_400 / 72,
}
# By their names, of which people type several into ImageJ; it writes "inch" itself.
NAMES = dict(micro=1.0, nano=1e-3, milli=1e3, centi=1e4)
WORDS = {
    **{f'{prefix}{meter}': size for prefix, size in NAMES.items() for meter in ('meter', 'metre')},
    **dict(micron=1.0, angstrom=1e-4, inch=25_400.0, inche=25_400.0),  # without an s at the end
}
NO_UNIT = ('', 'pixel', 'pixels', 'px')  # nothing is said of a size
# Properties that OpenSlide takes from a slide, and those of the vendors.
MAGNIFICATION = re.compile(
    r'^(openslide\.objective-power|.*(AppMag|SourceLens|OBJECTIVE_MAGNIFICATION|Magnification'
    r'|\.objective|Objective ?(Lens)?Power))$'
)
APERIO = re.compile(r'\|\s*(MPP|AppMag)\s*=\s*([^|\s]+)')
TIFF_UNITS = {2: 25_400.0, 3: 10_000.0}  # inch, centimeter; 1 is no unit


class PixelSize(NamedTuple):
    """Size of a level-0 pixel.

    Attributes:
        mpp: microns per pixel.
        source: where it comes from, or why it is not known, for the log.
        assumed: whether nothing says how large a pixel is.
        note: what the user should know of it; empty if it is plainly said.
    """

    mpp: float
    source: str
    assumed: bool = False
    note: str = ''


def unknown(reason: str) -> PixelSize:
    """The size of pixels that nothing tells of: that of most slides, x 40."""
    return PixelSize(ASSUMED_MPP, f'{reason}, {ASSUMED_MPP} assumed', assumed=True)


NOT_SAID = unknown('the file does not say')


def chosen(mpp: float | None, found: PixelSize) -> PixelSize:
    """What the user gives, in microns per pixel, or else what the file says.

    A note tells where the two differ: areas go with the square.

    Raises:
        UserError: the user gives what no microscope makes.
    """
    if mpp is None:
        return found
    size = given(mpp)
    if found.assumed or abs(size.mpp - found.mpp) <= MAX_UNEVEN * min(size.mpp, found.mpp):
        return size
    said = f'the file says {found.mpp:.4g} microns per pixel ({found.source})'
    return size._replace(note=f'{said}, --mpp {size.mpp:g} is used')


def given(mpp: float) -> PixelSize:
    """What the user gives, in microns per pixel.

    Raises:
        UserError: no microscope makes such pixels.
    """
    if isinstance(mpp, bool) or not isinstance(mpp, Real):
        raise UserError(f'{mpp!r} given as microns per pixel, expected a number such as 0.25')
    if not MIN_MPP <= mpp <= MAX_MPP:  # nor is NaN
        raise UserError(f'{mpp} microns per pixel given, expected {MIN_MPP} to {MAX_MPP:g}')
    return PixelSize(float(mpp), 'as given')


def checked(x: float | None, y: float | None, source: str) -> PixelSize:
    """A size that a file says, if it is there and plausible.

    Args:
        x: microns per pixel, None if the file does not say.
        y: likewise.
        source: such as 'TIFF resolution tags'.
    """
    x, y = x or y, y or x
    if not x or not y:
        return NOT_SAID
    if not all(math.isfinite(size) and MIN_MPP <= size <= MAX_MPP for size in (x, y)):
        dpi = f' ({25_400 / x:.4g} dpi)' if x > MAX_MPP else ''
        return unknown(
            f'{source} say {x:.4g} microns per pixel{dpi}, not used: expected {MIN_MPP} to '
            f'{MAX_MPP:g}',
        )
    if abs(x - y) > MAX_UNEVEN * min(x, y):
        source += f'; the mean of {x:.4g} in x and {y:.4g} in y, shapes are stretched'
        mpp = math.sqrt(x * y)
        return PixelSize(mpp, source, note=f'{mpp:.4g} microns per pixel are used: {source}')
    return PixelSize((x + y) / 2, source)


def from_dpi(dpi: tuple[float, float] | None, source: str) -> PixelSize:
    """What the resolution of a PNG or JPEG image says, dots per inch, in x and y."""
    x, y = (25_400 / float(value) if value else None for value in dpi or (0, 0))
    return checked(x, y, source)


def from_magnification(said: object, source: str) -> PixelSize | None:
    """The size that goes with a magnification by custom; None if that is none.

    Args:
        said: the magnification, in any form.
        source: such as 'AppMag of the description'.
    """
    try:
        magnification = float(str(said).strip().strip('xX'))  # as in 20x
        mpp = AT_ONE / magnification
    except (ValueError, ZeroDivisionError):
        return None
    if not MIN_MPP <= mpp <= AT_ONE:
        return None
    text = f'{source} says x{magnification:g}, which is {mpp:.4g} microns per pixel by custom'
    return PixelSize(mpp, text, note=f'{text}, see --mpp')


def from_openslide(properties: Mapping[str, str]) -> PixelSize:
    """What the properties of a slide say that OpenSlide reads."""
    x, y = (_number(properties.get(f'openslide.mpp-{axis}')) for axis in 'xy')
    found = checked(x, y, 'properties of the slide')
    keys = [key for key in sorted(properties) if MAGNIFICATION.search(key)]
    powers = [from_magnification(properties[key], f'{key} of the slide') for key in keys]
    return _best([found], powers)


def from_tiff(
    resolution: tuple[float, float],
    unit: int,
    imagej_unit: str,
    ome: 'OmeImage | None',
    description: str = '',
) -> PixelSize:
    """What a TIFF says: its OME-XML or Aperio's description first, then its resolution tags.

    Args:
        resolution: pixels per unit in x and y, 0 if there is no tag.
        unit: the tag ResolutionUnit.
        imagej_unit: what ImageJ puts in place of the unit; empty if it has not written the file.
        ome: what its OME-XML says of the image.
        description: of the page.
    """
    aperio = dict(APERIO.findall(description))
    mpp = _number(aperio.get('MPP'))
    name = imagej_unit.replace('\\u00B5', 'µ').strip()
    microns = _length(name) if name else TIFF_UNITS.get(unit)
    x, y = (microns / value if value and microns else None for value in resolution)
    measured = [
        ome.pixel_size if ome else None,
        checked(mpp, mpp, 'MPP of the description') if mpp and math.isfinite(mpp) else None,
        checked(x, y, 'TIFF resolution tags'),
        None if microns or name in NO_UNIT else _not_read(f'ImageJ says pixels per {name:.40}'),
    ]
    powers = [
        from_magnification(ome.magnification, 'magnification of the OME-XML') if ome else None,
        from_magnification(aperio.get('AppMag'), 'AppMag of the description'),
    ]
    return _best(measured, powers)


def _number(text: str | None) -> float | None:
    """What a text says; None if it is no number or there is none."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _length(unit: str) -> float | None:
    """Microns in a unit by its symbol or name; None if it is none of length."""
    return MICRONS.get(unit) or WORDS.get(unit.casefold().removesuffix('s'))


def _not_read(said: str) -> PixelSize:
    """The size of pixels of which a file says what cannot be read."""
    return unknown(f'{said}, not used: expected a number and a unit of length')


def _best(measured: Sequence[PixelSize | None], powers: Sequence[PixelSize | None]) -> PixelSize:
    """The first size that is measured, else by a magnification, else why there is none."""
    sizes = [size for size in measured if size]
    known = [size for size in sizes if not size.assumed] + [size for size in powers if size]
    said = [size for size in sizes if size != NOT_SAID]
    return [*known, *said, NOT_SAID][0]


class OmeImage:
    """What OME-XML says of one of its images.

    Args:
        text: the OME-XML, without a document type.
        index: of the image among those of the file.
        size: width and height, px, by which the image is told where the index does not fit.

    Attributes:
        pixel_size: of the image.
        magnification: of its objective, as it stands there; None if it is not said.
    """

    def __init__(self, text: str, index: int = 0, size: tuple[int, int] | None = None) -> None:
        self.pixel_size, self.magnification = unknown('OME-XML is damaged'), None
        try:
            root = ElementTree.fromstring(text)
        except ElementTree.ParseError:
            return
        images = [(node, pixels) for node in _all(root, 'Image') for pixels in _all(node, 'Pixels')]
        if size:
            fit = [item for item in images if _sides(item[1]) in (size, None)]
            if fit and (index >= len(images) or images[index] not in fit):
                images, index = fit, 0
        node, pixels = images[min(index, len(images) - 1)] if images else (root, root)
        self.pixel_size = _ome_size(pixels)
        used = [settings.get('ID') for settings in _all(node, 'ObjectiveSettings')]
        objectives = _all(root, 'Objective')
        if used or len(objectives) == 1:
            powers = [
                objective.get('NominalMagnification') or objective.get('CalibratedMagnification')
                for objective in objectives
                if not used or objective.get('ID') in used
            ]
            self.magnification = next(filter(None, powers), None)


def _ome_size(pixels: ElementTree.Element) -> PixelSize:
    """What an element Pixels says of their size."""
    sizes: list[float | None] = []
    unread = []
    for axis in 'XY':
        size = pixels.get(f'PhysicalSize{axis}')
        unit = pixels.get(f'PhysicalSize{axis}Unit', 'µm')
        number, microns = _number(size), _length(unit)
        sizes.append(None if number is None or microns is None else number * microns)
        if size is not None and sizes[-1] is None:
            unread.append(f'OME-XML says {size:.40} {unit:.40}')
    if unread and not any(sizes):
        return _not_read(unread[0])
    return checked(sizes[0], sizes[1], 'OME-XML')


def _all(root: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    """The elements of a name, whatever their namespace, which has the year of the schema."""
    return [node for node in root.iter() if node.tag.rpartition('}')[2] == name]


def _sides(pixels: ElementTree.Element) -> tuple[int, int] | None:
    try:
        return int(pixels.attrib['SizeX']), int(pixels.attrib['SizeY'])
    except (KeyError, ValueError):
        return None
