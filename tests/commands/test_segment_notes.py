"""What segment says of the files before it begins."""

from types import SimpleNamespace

from nucseg_mmdet.commands.segment import print_notes
from nucseg_mmdet.slides import pixel_size


def test_why_a_pixel_size_is_assumed_is_said_once_for_each_reason(capsys):
    dpi = pixel_size.from_dpi((72, 72), 'the PNG tags')
    sizes = dict(a=pixel_size.NOT_SAID, b=dpi, c=pixel_size.given(0.5), d=pixel_size.NOT_SAID)
    print_notes([
        SimpleNamespace(path=f'{name}.png', pixel_size=size, notes=[])
        for name, size in sizes.items()
    ])  # fmt: skip
    assert capsys.readouterr().err.splitlines() == [
        'a.png and 1 more: no microns per pixel in the file, 0.25 assumed, see --mpp',
        'b.png: the PNG tags say 352.8 microns per pixel (72 dpi), not used: expected 0.05 to 20, '
        '0.25 assumed, see --mpp',
    ]
