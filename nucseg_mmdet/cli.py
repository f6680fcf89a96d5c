"""The ``nucseg`` command: a name for each of the commands in ``nucseg_mmdet.commands``.

A command's module, with torch or OpenVINO behind it, is imported when that command is called.
"""

import importlib
import sys
from collections.abc import Sequence

from nucseg_mmdet import __version__
from nucseg_mmdet.utils.errors import exit_code

COMMANDS = {
    'segment': 'find the nuclei of images and slides',
    'view': 'look at slides and their nuclei in the browser',
    'score': 'score results against the truth',
    'prepare': 'turn annotated images into a data set to train on',
    'train': 'train a model',
    'test': 'test a model: scores, or the competition file answer.zip',
    'report': 'show a tested run on one HTML page',
    'models': 'list the models that can be named',
    'check': 'say what is installed and try the default model',
}
HELP = f"""usage: nucseg COMMAND ...

Instance segmentation of nuclei in H&E histology images.

commands:
{chr(10).join(f'  {name:<9} {text}' for name, text in COMMANDS.items())}

options:
  -h, --help  show this text; nucseg COMMAND --help shows a command's options
  --version   show the version
"""


@exit_code
def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ('-h', '--help'):
        print(HELP, end='')
        return 0 if arguments else 2
    name, *rest = arguments
    if name == '--version':
        print(f'nucseg-mmdet {__version__}')
        return 0
    if name not in COMMANDS:
        print(f'nucseg: {name}: expected one of {", ".join(COMMANDS)}', file=sys.stderr)
        return 2
    sys.argv[0] = f'nucseg {name}'  # the name that parsers show in their usage
    if argv is None:
        del sys.argv[1]  # so that run cards, which have the whole line, have the name once
    return run(name, rest)


@exit_code
def run(name: str, argv: Sequence[str] | None = None) -> int:
    """Import a command and call it; Ctrl-C is minded from here on, as imports take seconds."""
    command = importlib.import_module(f'nucseg_mmdet.commands.{name}')
    return command.main(argv)


if __name__ == '__main__':
    raise SystemExit(main())
