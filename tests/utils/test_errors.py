"""How commands end: exit code, lines, signals, outputs that are closed."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from nucseg_mmdet.utils.errors import UserError, count_nuclei, counted, exit_code, few, printable

ENDS = {
    'return 0': (0, ''),
    'return 1': (1, ''),
    "raise UserError('a.png: gone')": (2, 'a.png: gone'),
    "raise UserError('one', 'two')": (2, 'one two'),
    "raise UserError('a\\nb.png: gone')": (2, 'a\\nb.png: gone'),
    "open('a\\nb')": (2, 'a\\nb: No such file or directory'),
    'raise KeyboardInterrupt': (130, 'stopped'),
    'raise MemoryError': (2, 'needs more memory than there is'),
    "open('/no/such')": (2, '/no/such: No such file or directory'),
    '1 / 0': (2, 'unforeseen ZeroDivisionError: division by zero (NUCSEG_DEBUG=1 shows where)'),
    'os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)': (130, 'stopped'),
    'caught(signal.SIGTERM)': (130, 'stopped'),
    'caught(signal.SIGINT)': (130, 'stopped'),
    "caught(signal.SIGTERM, UserError('the config'))": (130, 'stopped'),
}


def script(tmp_path, body):
    path = tmp_path / 'tool.py'
    text = f"""
        import os, signal, sys, time
        from nucseg_mmdet.utils.errors import UserError, exit_code

        # A shell lets what it starts in the background ignore Ctrl-C.
        signal.signal(signal.SIGINT, signal.default_int_handler)

        def caught(number, other=SyntaxError('the config')):  # as a library may do
            try:
                os.kill(os.getpid(), number); time.sleep(9)
            except BaseException:
                raise other

        @exit_code
        def main():
            {body}
            return 0

        raise SystemExit(main())
    """
    path.write_text(textwrap.dedent(text))
    return [sys.executable, str(path)]


@pytest.mark.parametrize('body', ENDS)
def test_main_ends_with_a_code_and_plain_lines(body, tmp_path):
    code, message = ENDS[body]
    ended = subprocess.run(script(tmp_path, body), capture_output=True, text=True)
    assert ended.returncode == code
    said = ' '.join(line.removeprefix('tool: ') for line in ended.stderr.splitlines())
    assert said == message


@pytest.mark.parametrize(
    ('number', 'nuclei', 'images'),
    [
        (0, '0 nuclei', '0 images'),
        (1, '1 nucleus', '1 image'),
        (2, '2 nuclei', '2 images'),
        (1_200, '1,200 nuclei', '1,200 images'),
    ],
)
def test_numbers_of_things(number, nuclei, images):
    assert (count_nuclei(number), counted(number, 'image')) == (nuclei, images)


def test_debug_shows_the_place(tmp_path):
    env = {**os.environ, 'NUCSEG_DEBUG': '1'}
    ended = subprocess.run(script(tmp_path, '1 / 0'), capture_output=True, text=True, env=env)
    assert ended.returncode == 2
    assert 'Traceback' in ended.stderr
    assert 'in main' in ended.stderr


def test_closed_output_does_not_end_the_work(tmp_path):
    body = (
        f"[print('x' * 99, flush=True) for _ in range(99)]; open({str(tmp_path / 'done')!r}, 'w')"
    )
    command = ' '.join([*script(tmp_path, f'{body}')[:1], str(tmp_path / 'tool.py')])
    for end in ('| head -1', '>&-'):
        (tmp_path / 'done').unlink(missing_ok=True)
        ended = subprocess.run(
            ['bash', '-c', f'set -o pipefail; {command} {end}'], capture_output=True, text=True
        )
        assert (ended.returncode, ended.stderr) == (0, ''), end
        assert (tmp_path / 'done').exists(), end


@pytest.mark.parametrize('body', ["print('x')", "print('x'); raise SystemExit"])
def test_output_on_a_full_disk_is_one_line(tmp_path, body):
    with open('/dev/full', 'w') as full:
        ended = subprocess.run(script(tmp_path, body), stdout=full, stderr=-1, text=True)
    assert ended.returncode == 2
    assert ended.stderr == 'tool: a file: cannot be written (No space left on device)\n'


def test_name_that_is_no_text_is_printed(tmp_path):
    env = {**os.environ, 'PYTHONIOENCODING': 'ascii:strict'}
    command = script(tmp_path, r"print(os.fsdecode(b'\xfc'), '\u00e9')")
    ended = subprocess.run(command, capture_output=True, text=True, env=env)
    assert (ended.returncode, ended.stdout) == (0, '\\udcfc \\xe9\n')


def test_forked_worker_ends_with_its_killed_parent(tmp_path):
    child = tmp_path / 'child'
    body = (
        'pid = os.fork()\n'
        '    if pid == 0: time.sleep(60)\n'
        f'    open({str(child)!r}, "w").write(str(pid))\n'
        '    time.sleep(60)'
    )
    # The body is indented by the script as its first line is.
    body = body.replace('\n    ', '\n            ')
    parent = subprocess.Popen(script(tmp_path, body))
    while not (child.exists() and child.read_text()):
        assert parent.poll() is None
    parent.kill()
    parent.wait()
    number = int(child.read_text())
    for _ in range(1_000):  # until the kernel has delivered the signal
        if not alive(number):
            return
        signal.sigtimedwait([], 0.01)
    os.kill(number, signal.SIGKILL)
    pytest.fail('the worker outlived its parent')


def alive(number):
    try:
        with open(f'/proc/{number}/stat') as file:
            return file.read().rpartition(')')[2].split()[0] != 'Z'
    except OSError:
        return False


def test_terminal_gets_no_control_characters():
    assert printable('a\x1b[31m\n\ud800é') == 'a\\x1b[31m\\n\\ud800é'


def test_many_lines_become_few():
    lines = [str(number) for number in range(50_000)]
    assert few(lines) == [*lines[:10], '... and 49,990 more']
    assert few(lines[:11]) == lines[:11]


def test_user_error_is_the_callers_own(capsys):
    @exit_code
    def main():
        raise UserError('a\x1b[31m')

    assert main() == 2
    assert capsys.readouterr().err == 'test_errors: a\\x1b[31m\n'
