"""The runtimes that a model can run in, and the choice between them."""

import ctypes.util
import importlib.util

from nucseg_mmdet.engine.model_zoo import find_config
from nucseg_mmdet.inference.predictor import ModelOptions, Predictor, runtime_file
from nucseg_mmdet.utils.errors import UserError

BACKENDS = dict(mmdet='torch', openvino='openvino')  # names, and what they need


def load_predictor(options: ModelOptions, backend: str | None = None) -> Predictor:
    """Load a model into a runtime, which is imported only now.

    Args:
        options: which model.
        backend: one of ``BACKENDS``; by default see ``choose_backend``.

    Raises:
        UserError: the runtime is not installed, a file is missing or does not fit, or a value is
            not possible.
    """
    if options.score_thr is not None and not 0 <= options.score_thr < 1:
        raise UserError(
            f'score threshold is {options.score_thr}, expected 0 or more and less than 1'
        )
    if backend not in (None, *BACKENDS):
        raise UserError(f'backend is {backend!r}, expected one of {", ".join(BACKENDS)}')
    if options.config is not None:
        options = options._replace(config=find_config(options.config))  # an old name is told once
    backend = backend or choose_backend(options)
    if not _is_installed(BACKENDS[backend]):
        extra = dict(mmdet='train', openvino='slides')[backend]
        raise UserError(f'backend {backend} is not installed: pip install nucseg-mmdet[{extra}]')
    if backend == 'openvino':
        from nucseg_mmdet.inference.openvino_predictor import OpenVinoPredictor

        return OpenVinoPredictor(options)
    from nucseg_mmdet.inference.mmdet_predictor import MMDetPredictor

    return MMDetPredictor(options)


def choose_backend(options: ModelOptions) -> str:
    """Torch where a GPU is asked for or there is one, else OpenVINO where it can run the model.

    Only torch has fp16, only OpenVINO int8.
    """
    if options.precision == 'int8':
        return 'openvino'
    on_gpu = options.device not in (None, 'cpu')
    # Without a driver there is no GPU; only then is torch spared, whose import takes seconds.
    if options.device is None and _is_installed('torch') and ctypes.util.find_library('cuda'):
        import torch

        on_gpu = torch.cuda.is_available()
    if on_gpu or options.precision == 'fp16' or not _is_installed('openvino'):
        return 'mmdet'
    # Without torch there is no choice, and OpenVINO says what is missing.
    return 'openvino' if runtime_file(options).is_file() or not _is_installed('torch') else 'mmdet'


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
