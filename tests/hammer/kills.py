"""Kill commands at random moments, give them again: the result is that of an undisturbed run.

Real processes with their workers, most of them killed by SIGKILL. What they leave must not
keep the same command from finishing, and no process may stay.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from nucseg_mmdet.synthetic import fields
from tests.hammer import isolation
from tests.hammer.damaged import Verdict

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs/demo/mask-rcnn_r18_fpn_demo_nuclei.py'
SIGNALS = (signal.SIGKILL,) * 4 + (signal.SIGTERM, signal.SIGINT)
LONGEST = 300  # s that an undisturbed run may take
LATE = 1.1  # kills fall into this part of an undisturbed run's time: some come too late
# As little as still has every part: two crops an iteration, a checkpoint after each.
TINY = [
    'train_cfg.max_iters=4',
    'train_dataloader.batch_size=2',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'test_dataloader.num_workers=1',
    'default_hooks.checkpoint.interval=1',
    'default_hooks.checkpoint.max_keep_ckpts=1',
    'default_hooks.logger.interval=1',
]


@dataclass(frozen=True)
class Command:
    """A command that is killed and given again.

    Attributes:
        name: of the tool.
        arguments: for a folder of results.
        again: further arguments after a kill.
        result: what there is in the folder in the end, for comparison.
    """

    name: str
    arguments: Callable[[Path], list[str]]
    again: tuple[str, ...]
    result: Callable[[Path], object]


def kill(scratch: Path, number: int, seed: int = 0, names: list[str] | None = None) -> Iterator:
    """Kill each command a number of times, each time from its start.

    Args:
        scratch: folder for the files.
        number: of kills of each command.
        seed: of moments and signals.
        names: of commands; by default all.
    """
    for command in commands(_inputs(scratch / 'inputs')):
        if names and command.name not in names:
            continue
        started = time.monotonic()
        folder = isolation.fresh(scratch / f'{command.name}_undisturbed')
        code, said = _wait(_start(command, folder))
        whole = time.monotonic() - started
        if code:
            yield Verdict(f'kill {command.name}', 'undisturbed', f'exit code {code}: {said:.300}')
            continue
        right = command.result(folder)
        rng = np.random.default_rng([seed, len(command.name)])
        for index in range(number):
            moment, sent = rng.uniform(0, LATE * whole), SIGNALS[rng.integers(len(SIGNALS))]
            folder = isolation.fresh(scratch / f'{command.name}_killed')
            complaint = _kill_once(command, folder, moment, sent, right)
            name = f'{index}: {sent.name} after {moment:.2f} of {whole:.2f} s'
            yield Verdict(f'kill {command.name}', name, complaint)


def double(scratch: Path, number: int, seed: int = 0) -> Iterator[Verdict]:
    """Give the same segment command twice, the second at any moment of the first.

    Args:
        scratch: folder for the files.
        number: of pairs.
        seed: of the moments.
    """
    (command,) = (
        one for one in commands(_inputs(scratch / 'inputs_of_two')) if one.name == 'segment'
    )
    started = time.monotonic()
    folder = isolation.fresh(scratch / 'alone')
    code, said = _wait(_start(command, folder))
    whole = time.monotonic() - started
    if code:
        yield Verdict('two at once', 'alone', f'exit code {code}: {said:.300}')
        return
    right = command.result(folder)
    rng = np.random.default_rng(seed)
    for index in range(number):
        moment = rng.uniform(0, LATE * whole) if index % 2 else 0.0
        folder = isolation.fresh(scratch / 'two')
        first = _start(command, folder)
        time.sleep(moment)
        ends = [_wait(process) for process in (first, _start(command, folder))]
        complaint = _judge_two(ends) or isolation.leftovers(folder)
        if not complaint and command.result(folder) != right:
            complaint = 'another result than alone'
        name = f'{index}: after {moment:.2f} of {whole:.2f} s'
        yield Verdict('two at once', name, complaint)


def _judge_two(ends: list[tuple[int, str]]) -> str | None:
    """What is wrong with how two runs ended: one has to finish, the other to say why not."""
    if all(code for code, _ in ends):
        return f'neither finished: {ends[0][1]:.200}'
    for code, said in ends:
        if 'Traceback' in said:
            return f'traceback: {said.splitlines()[-1]:.200}'
        if code and (code != 2 or 'another run writes there' not in said):
            return f'exit code {code}: {said[-300:]}'
    return None


def _kill_once(
    command: Command, folder: Path, moment: float, sent: signal.Signals, right: object
) -> str | None:
    process = _start(command, folder)
    try:
        process.wait(moment)
    except subprocess.TimeoutExpired:
        process.send_signal(sent)
    code, said = _wait(process)
    if isolation.end_group(process.pid):
        return 'processes left'
    if 'Traceback' in said:
        return f'traceback: {said.splitlines()[-1]:.200}'
    if code not in (0, 130, -sent):
        return f'exit code {code} after {sent.name}: {said[-300:]}'
    code, said = _wait(_start(command, folder, *command.again))
    if code:
        return f'the same command again: exit code {code}: {said:.300}'
    if command.result(folder) != right:
        return 'another result than undisturbed'
    return isolation.leftovers(folder)


def _start(command: Command, folder: Path, *more: str) -> subprocess.Popen:
    call = [sys.executable, str(ROOT / f'tools/{command.name}.py'), *command.arguments(folder)]
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)}
    said = tempfile.TemporaryFile('w+')  # noqa: SIM115  closed by _wait
    process = subprocess.Popen(
        [*call, *more], cwd=ROOT, env=env, stdout=said, stderr=said, start_new_session=True
    )
    process.said = said
    return process


def _wait(process: subprocess.Popen) -> tuple[int, str]:
    code = process.wait(LONGEST)
    with process.said as said:
        said.seek(0)
        return code, said.read()


def _inputs(folder: Path) -> Path:
    """A small raw data set, prepared data, a model of random weights, a few images."""
    fields.write_dataset(folder / 'raw', num_train=5, num_test=2, size=96, seed=3)
    prepare = [str(ROOT / 'tools/prepare_data.py'), 'vrdl', str(folder / 'raw')]
    subprocess.run(
        [sys.executable, *prepare, str(folder / 'data'), '--workers', '1'],
        check=True, capture_output=True, env={**os.environ, 'PYTHONPATH': str(ROOT)},
    )  # fmt: skip
    few = 'dict(rpn=dict(nms_pre=60, max_per_img=40), rcnn=dict(max_per_img=20))'
    (folder / 'random.py').write_text(f'_base_ = {str(CONFIG)!r}\nmodel = dict(test_cfg={few})\n')
    _write_random_model(folder)
    (folder / 'images').mkdir()
    for seed in (1, 2, 3):
        image = fields.synthesize(seed, 128, 160, 20)[0]
        cv2.imwrite(str(folder / f'images/{seed}.png'), image[..., ::-1])
    return folder


def _write_random_model(folder: Path) -> None:
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    config = Config.fromfile(folder / 'random.py')
    init_default_scope('mmdet')
    torch.manual_seed(0)
    torch.save(dict(state_dict=MODELS.build(config.model).state_dict()), folder / 'random.pth')


def commands(inputs: Path) -> list[Command]:
    """What is killed."""
    config, checkpoint = str(inputs / 'random.py'), str(inputs / 'random.pth')
    data = ['--data-root', str(inputs / 'data')]

    def prepare(folder: Path) -> list[str]:
        return ['vrdl', str(inputs / 'raw'), str(folder / 'out'), '--workers', '2', '--overwrite']

    def segment(folder: Path) -> list[str]:
        model = ['--config', config, '--checkpoint', checkpoint, '--device', 'cpu']
        options = ['--score-thr', '0', '--tile', '96', '--overlap', '32']
        return [str(inputs / 'images'), '--out', str(folder / 'out'), *model, *options]

    def train(folder: Path) -> list[str]:
        work_dir = ['--work-dir', str(folder / 'out'), '--initial-weights', 'none']
        return [config, *data, *work_dir, '--cfg-options', *TINY]

    def test(folder: Path) -> list[str]:
        out = ['--work-dir', str(folder / 'out'), '--show-dir', str(folder / 'out/show')]
        return [config, checkpoint, *data, *out, '--format-only', '--cfg-options', *TINY]

    return [
        Command('prepare_data', prepare, (), lambda folder: _contents(folder / 'out')),
        Command('segment', segment, (), lambda folder: _contents(folder / 'out', '.summary.json')),
        Command('test', test, (), _answer),
        Command('train', train, ('--resume',), _last_weights),
    ]


def _contents(folder: Path, *left_out: str) -> dict[str, str]:
    """Digests of all files but those whose names end so."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob('*'))
        if path.is_file() and not path.name.endswith(left_out)
    }


def _answer(folder: Path) -> tuple:
    answer = json.loads((folder / 'out/answer.json').read_text())
    return answer, _contents(folder / 'out/show')


def _last_weights(folder: Path) -> str:
    """Digest of the weights after the last iteration."""
    content = torch.load(folder / 'out/iter_4.pth', map_location='cpu', weights_only=False)
    digest = hashlib.sha256()
    for key, value in content['state_dict'].items():
        digest.update(key.encode() + value.numpy().tobytes())
    return digest.hexdigest()
