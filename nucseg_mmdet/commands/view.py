"""Look at slides and their nuclei in a browser: nucseg view RESULTS [SLIDES...].

RESULTS is the folder that nucseg segment wrote to. The slides are looked for where it has read
them; where they have moved, SLIDES names them, or their folders. Only this machine can open the
page; Ctrl-C ends it.
"""

import argparse
import contextlib
import secrets
import socket
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from nucseg_mmdet.utils.arguments import ArgumentParser
from nucseg_mmdet.utils.errors import UserError, exit_code, printable

ADDRESS = '127.0.0.1'
GRACE = 1  # s for answers under way when the server ends


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('results', type=Path, metavar='RESULTS', help='folder of the results')
    parser.add_argument(
        'slides', type=Path, nargs='*', default=[], metavar='SLIDES', help='or their folders'
    )
    parser.add_argument('--port', type=int, default=0, help='default: one that is free')
    parser.add_argument('--open', action='store_true', help='open the page in the browser')
    return parser.parse_args(argv)


@exit_code
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    if not 0 <= args.port < 1 << 16:
        raise UserError(f'--port {args.port}: expected 0 to 65535')
    try:
        import uvicorn

        from nucseg_mmdet.viewer.server import make_app
        from nucseg_mmdet.viewer.site import Site
    except ModuleNotFoundError as error:
        raise UserError(
            f"{error.name} is not installed, expected it: pip install 'nucseg-mmdet[view]'"
        ) from None
    site = Site(args.results, args.slides)
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((ADDRESS, args.port))
        except OSError as error:
            raise UserError(f'--port {args.port}: {error.strerror}, expected a free one') from None
        port, token = listener.getsockname()[1], secrets.token_urlsafe(24)
        address = f'http://{ADDRESS}:{port}/{token}/'

        def tell() -> None:
            print(f'{len(site.shown())} {"slides" if site.shown()[1:] else "slide"}: {address}')
            print('Ctrl-C ends it.', flush=True)
            if args.open:
                webbrowser.open(address)

        for problem in site.problems:
            print(printable(problem), file=sys.stderr)
        hosts = [f'{ADDRESS}:{port}', f'localhost:{port}']
        app = make_app(site, token, hosts, tell)
        listener.listen()  # so that nobody is sent away between tell and the first answer
        config = uvicorn.Config(
            app, log_level='warning', access_log=False, timeout_graceful_shutdown=GRACE
        )
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
