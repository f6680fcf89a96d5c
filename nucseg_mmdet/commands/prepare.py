"""Raw data to COCO JSON and images: nucseg prepare FORMAT RAW OUT.

OUT gets train/, test/ and annotations/ with train.json, test.json and the folds
(fold1_train.json, fold1_val.json, ...). `nucseg prepare FORMAT --help` shows the layout of a
format. `nucseg prepare export DATA OUT` writes label maps or masks of prepared data.
"""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType

from tqdm import tqdm

from nucseg_mmdet.converters import (
    base,
    coco,
    dsb2018,
    export,
    label_map,
    mat,
    monuseg_xml,
    pannuke,
    qupath,
    target,
    vrdl,
)
from nucseg_mmdet.utils.arguments import ArgumentParser, summary_of
from nucseg_mmdet.utils.errors import UserError, count_nuclei, counted, exit_code, few, printable

READERS: dict[str, ModuleType] = {
    'coco': coco,
    'dsb2018': dsb2018,
    'label-map': label_map,
    'mat': mat,
    'monuseg-xml': monuseg_xml,
    'pannuke': pannuke,
    'qupath': qupath,
    'vrdl': vrdl,
}


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    formats = parser.add_subparsers(dest='format', metavar='FORMAT', required=True)
    formats.type = str  # of all that stands behind FORMAT, too, which its own parser looks at
    for name, reader in READERS.items():
        add_format(formats, name, reader)
    add_export(formats)
    return parser.parse_args(argv)


def add_format(formats: argparse._SubParsersAction, name: str, reader: ModuleType) -> None:
    """Add the command line of one format; the reader's docstring shows its layout."""
    parser = formats.add_parser(
        name,
        help=summary_of(reader.__doc__),
        description=reader.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('raw', type=Path, metavar='RAW')
    parser.add_argument('out', type=Path, metavar='OUT')
    for option, text in reader.OPTIONS.items():
        parser.add_argument(f'--{option}', help=text)
    parser.add_argument(
        '--classes',
        nargs='*',
        metavar='NAME[=TYPE,TYPE]',
        help='classes of the JSON and the types of nuclei in each; without names every type '
        'is a class; by default all nuclei are of the class nucleus',
    )
    parser.add_argument(
        '--skip-bad', action='store_true', help='leave out bad masks and images, and list them'
    )
    parser.add_argument('--overwrite', action='store_true', help='replace OUT')
    parser.add_argument('--limit', type=int, help='only the first images, to try it out')
    parser.add_argument('--workers', type=int, help='processes (default: one a core)')


def add_export(formats: argparse._SubParsersAction) -> None:
    """Add the command line of the way back."""
    parser = formats.add_parser(
        'export',
        help=summary_of(export.__doc__),
        description=export.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('data', type=Path, metavar='DATA', help='folder of a prepared data set')
    parser.add_argument('out', type=Path, metavar='OUT')
    parser.add_argument('--layout', choices=export.LAYOUTS, default='labels')
    parser.add_argument(
        '--part', default='train', help='train, fold1_train, fold1_val, ...; default: %(default)s'
    )
    parser.add_argument('--workers', type=int, help='processes (default: one a core)')


def parse_classes(texts: Sequence[str] | None) -> dict[str, list[str]] | None:
    """Turn ``['epithelial=healthy,dysplastic', 'other']`` into class name -> types.

    Raises:
        UserError: a name or a type is empty or stands twice.
    """
    if texts is None:
        return None
    classes: dict[str, list[str]] = {}
    for text in texts:
        name, _, types = text.partition('=')
        chosen = types.split(',') if types else [name]
        taken = [kind for others in classes.values() for kind in others]
        if name in classes or not all([name, *chosen]):
            raise UserError(f'--classes {text}: expected another NAME, or NAME=TYPE,TYPE')
        if len({*taken, *chosen}) < len(taken) + len(chosen):
            raise UserError(f'--classes {text}: a type stands there twice, expected once')
        classes[name] = chosen
    return classes


@exit_code
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    for option in ('limit', 'workers'):
        value = getattr(args, option, None)
        if value is not None and value < 1:
            raise UserError(f'--{option} {value}: expected 1 or more')
    if args.format == 'export':
        images, nuclei = export.export(
            args.data, args.out, args.layout, args.part, args.workers, show_progress
        )
        print(f'{args.out}: {counted(images, "image")} with {count_nuclei(nuclei)}')
    else:
        prepare(args)
    return 0


def show_progress(items: Iterable, total: int) -> Iterable:
    return tqdm(items, 'images', total, disable=None)


def prepare(args: argparse.Namespace) -> None:
    """Read raw data, write COCO, say what was found."""
    reader = READERS[args.format]
    classes = parse_classes(args.classes)
    target.check_target(args.out, args.overwrite)
    given = {option: getattr(args, option) for option in reader.OPTIONS}
    given = {option: text for option, text in given.items() if text}
    folders = [given['images']] if 'images' in given else []  # or a pattern under RAW
    target.check_apart(args.out, args.raw, *map(Path, folders))
    if hasattr(reader, 'find_left_out'):  # said first: it may be why an image has no truth
        for line in few(reader.find_left_out(args.raw, **given)):
            print(f'note: {printable(line)}', flush=True)
    entries = reader.find_images(args.raw, **given)
    test_images, test_problems = [], []
    if hasattr(reader, 'find_test_images'):
        test_images, test_problems = reader.find_test_images(args.raw)
    summary = base.prepare(
        entries[: args.limit],
        reader.read_image,
        test_images,
        test_problems,
        args.out,
        classes=classes,
        skip_bad=args.skip_bad,
        overwrite=args.overwrite,
        workers=args.workers,
        progress=show_progress,
    )
    for line in summary.left_out:  # all: what is missing is told nowhere else
        print(f'left out: {printable(line)}')
    for line in few(summary.notes):
        print(f'note: {printable(line)}')
    nuclei = count_nuclei(sum(summary.nuclei.values()))
    print(
        f'{args.out}: {counted(summary.images, "training image")} with {nuclei}, '
        f'{counted(summary.test_images, "test image")}'
    )
    if classes is not None:
        print('\n'.join(f'  {name}: {count:,}' for name, count in summary.nuclei.items()))
