"""List the models that can be named, and what is known of them."""

import argparse
from collections.abc import Sequence

from nucseg_mmdet.engine import model_zoo
from nucseg_mmdet.utils.arguments import ArgumentParser
from nucseg_mmdet.utils.errors import exit_code


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument(
        '--verify', action='store_true', help='compare the weights with their published SHA-256'
    )
    return parser.parse_args(argv)


def describe(name: str, model: model_zoo.Model) -> str:
    """Lay out the facts of a model in lines."""
    facts = [
        ('config', model_zoo.find_file(model.config)),
        ('weights', model_zoo.find_file(model.weights)),
        ('sha256', model.sha256),
        ('trained on', model.data),
        ('license', model.license),
    ]
    for scores in model.scores:
        values = ', '.join(f'{score} {value:.3f}' for score, value in scores.values.items())
        facts.append(('scored on', f'{scores.on}: {values}'))
    default = ' (default)' if name == model_zoo.DEFAULT else ''
    lines = [f'{name}{default}: {model.about}']
    return '\n'.join([*lines, *(f'  {fact:<11} {value}' for fact, value in facts)])


@exit_code
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    for name, model in model_zoo.MODELS.items():
        print(describe(name, model))
        if args.verify:
            model_zoo.check_weights(name)
            print('  verified    the weights are the published ones')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
