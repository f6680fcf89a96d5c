"""Known nuclei, seen through tiles by a detector that cuts at borders, come back once and whole."""

import errno
from itertools import product

import cv2
import numpy as np
import pytest
import shapely

from nucseg_mmdet.inference import shards, tiling
from nucseg_mmdet.inference.tiling import NOTHING, Part
from nucseg_mmdet.structures.nuclei import EMPTY, MEASUREMENTS, Nuclei, concatenate
from nucseg_mmdet.structures.polygons import mask_to_polygons
from nucseg_mmdet.utils.errors import UserError

RADIUS = 14  # px, of the largest nucleus


def nucleus(mask, corner, score=0.9):
    """One nucleus of a mask, as the tracing of a network's masks gives it."""
    ring = max(mask_to_polygons(mask, corner), key=len)
    y, x = np.nonzero(mask)
    return Nuclei(
        np.array(ring, np.int32).reshape(-1, 2),
        np.array([len(ring) // 2], np.int32),
        np.array([score], np.float32),
        np.array([[x.mean() + 0.5 + corner[0], y.mean() + 0.5 + corner[1]]]),
        np.full((1, len(MEASUREMENTS)), mask.sum(), np.float32),
        np.zeros(1, np.uint8),
    )


def rectangle(left, top, right, bottom, score=0.9):
    return nucleus(np.ones((bottom - top, right - left), bool), (left, top), score)


def ellipse(x, y, long=9, short=7, angle=30):
    """A filled ellipse: its mask, and x, y of the mask's corner."""
    mask = np.zeros((2 * RADIUS + 1, 2 * RADIUS + 1), np.uint8)
    cv2.ellipse(mask, (RADIUS, RADIUS), (long, short), angle, 0, 360, 1, -1)
    return mask.astype(bool), (x - RADIUS, y - RADIUS)


def scattered(width, height, step=18, seed=0):
    """Nuclei that touch their neighbors here and there, none over another."""
    rng = np.random.default_rng(seed)
    taken = np.zeros((height, width), bool)
    scene = []
    for y, x in product(range(20, height - 20, step), range(20, width - 20, step)):
        x, y = x + rng.integers(-3, 4), y + rng.integers(-3, 4)
        mask, (left, top) = ellipse(x, y, *rng.integers(6, 11, 2), rng.integers(180))
        window = taken[top : top + len(mask), left : left + len(mask)]
        mask &= ~window
        window |= mask
        count, parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
        mask = parts == max(range(1, count), key=lambda part: (parts == part).sum())
        scene.append((mask, (left, top)))
    return scene


def detect(scene, left, top, width, height, missed=0.0):
    """Nuclei of a tile, px of the tile: clipped to it, less certain there, never the same twice."""
    found = []
    for index, (mask, (x, y)) in enumerate(scene):
        if not (left - RADIUS < x + RADIUS < left + width + RADIUS):
            continue
        if not (top - RADIUS < y + RADIUS < top + height + RADIUS):
            continue
        rng = np.random.default_rng([index, left + 1000, top + 1000])
        if rng.random() < missed:
            continue
        move_x, move_y = rng.integers(-1, 2, size=2)
        seen = np.zeros((height + 200, width + 200), np.uint8)
        x, y = x - left + 100 + move_x, y - top + 100 + move_y
        seen[y : y + len(mask), x : x + len(mask)] = mask
        if rng.random() < 0.5:
            seen = cv2.dilate(seen, np.ones((2, 2), np.uint8))
        inside = seen[100:-100, 100:-100].astype(bool)
        share = inside.sum() / mask.sum()
        if share > 0.2:
            score = 0.5 + 0.4 * min(1, share) + 0.1 * rng.random()
            found.append(nucleus(inside, (0, 0), score))
    return concatenate(found)


def segment(scene, grid, shift=(0, 0), **kwargs):
    """The whole image by way of the tiles, moved by ``shift`` against the scene."""
    rows = []
    for row in range(len(grid.tops)):
        tiles = []
        for column in range(len(grid.lefts)):
            left, top = grid.lefts[column] + shift[0], grid.tops[row] + shift[1]
            size = grid.tile(row, column)[2:]
            tiles.append((column, detect(scene, left, top, *size, **kwargs)))
        rows.append(tiling.join_row(tiles, grid, row))
    joined = tiling.concatenate_parts(tiling.join_rows(rows, grid))
    return joined._replace(nuclei=joined.nuclei.moved(*shift))


def overlaps(scene, found):
    """IoU of every known nucleus (rows) with every found one (columns)."""
    truth = concatenate([nucleus(*item) for item in scene]).polygons()[:, None]
    shared = shapely.area(shapely.intersection(truth, found.polygons()))
    return shared / (shapely.area(truth) + shapely.area(found.polygons()) - shared)


def check_once_and_whole(scene, found, iou=0.6):
    # The detector moves a nucleus by up to 1.4 px and may widen it by 1: 0.6 and more is the
    # same nucleus. Half of one has at most 0.5.
    table = overlaps(scene, found)
    assert (table > iou).sum(axis=1).tolist() == [1] * len(scene)
    assert (table > iou).sum(axis=0).tolist() == [1] * len(found)


class TestGrid:
    @pytest.mark.parametrize('length', [1, 100, 256, 257, 511, 512, 1000, 1001, 4096])
    @pytest.mark.parametrize('step', [1, 16, 32, 64])
    @pytest.mark.parametrize(('tile', 'overlap'), [(256, 64), (256, 128), (512, 0), (300, 37)])
    def test_tiles_cover_the_image_and_overlap(self, length, step, tile, overlap):
        grid = tiling.make_grid(length, 50, tile, overlap, step)
        lefts, rights = np.array(grid.lefts), np.array(grid.rights)
        assert lefts[0] == 0
        assert rights[-1] == length
        assert (rights - lefts <= tile).all()
        assert (rights[:-1] - lefts[1:] >= overlap).all()
        assert (lefts % step == 0).all()
        assert (np.diff(lefts) > 0).all()
        assert (grid.tops, grid.bottoms, grid.seams_y) == ([0], [50], [])
        if step == 1:
            assert len(lefts) == max(1, np.ceil((length - overlap) / (tile - overlap)))

    def test_by_hand(self):
        # Three tiles of at most 100 px for 240 px with 20 px twice: (240 + 2 x 20) / 3 = 94 px.
        grid = tiling.make_grid(240, 100, 100, 20)
        assert (grid.lefts, grid.rights) == ([0, 73, 146], [94, 167, 240])
        assert grid.seams_x == [83, 156]
        cells = [grid.cell(0, column) for column in range(3)]
        assert [(x, width) for x, _, width, _ in cells] == [(0, 83), (83, 73), (156, 84)]
        assert grid.tile(0, 1) == (73, 0, 94, 100)
        # Rows of at most 100 px for 150 px with 20 px: (150 + 20) / 2 = 85 px.
        grid = tiling.make_grid(240, 150, 100, 20)
        assert grid.tile(1, 2) == (146, 65, 94, 85)
        assert [grid.cell(row, 2) for row in range(2)] == [(156, 0, 84, 75), (156, 75, 84, 75)]
        # In steps of 16 px: 15 of them, tiles of 6, 2 twice; (15 + 2 x 2) / 3 = 7 is too much,
        # so four tiles, (15 + 3 x 2) / 4 = 6.
        grid = tiling.make_grid(240, 100, 100, 20, 16)
        assert (grid.lefts, grid.rights) == ([0, 48, 96, 144], [96, 144, 192, 240])

    def test_a_step_that_leaves_no_room_is_halved(self):
        # 64 px are most of a tile; in steps of 32 px tiles of 2 overlap by 1.
        grid = tiling.make_grid(240, 100, 80, 30, 64)
        assert (grid.lefts[:3], grid.rights[:3]) == ([0, 32, 64], [64, 96, 128])
        assert (grid.lefts[-1], grid.rights[-1]) == (192, 240)

    @pytest.mark.parametrize(('tile', 'overlap'), [(256, 129), (256, -1), (0, 0)])
    def test_overlap_is_refused(self, tile, overlap):
        with pytest.raises(UserError, match=f'tiles of {tile} px overlap by {overlap} px'):
            tiling.make_grid(1000, 1000, tile, overlap)


class TestCore:
    grid = tiling.make_grid(176, 60, 100, 24)  # tiles at 0 and 76, seam at 88

    def keep(self, column, *boxes):
        found = concatenate([rectangle(*box) for box in boxes])
        part = tiling.keep_core(found, self.grid, 0, column)
        return part.nuclei.boxes().tolist(), part.cut.tolist()

    def test_what_does_not_reach_over_the_seam_is_the_neighbors(self):
        assert self.keep(0, (88, 10, 95, 20)) == ([], [])
        assert self.keep(0, (87, 10, 95, 20)) == ([[87, 10, 95, 20]], [False])
        assert self.keep(1, (2, 10, 12, 20)) == ([], [])
        assert self.keep(1, (2, 10, 13, 20)) == ([[78, 10, 89, 20]], [False])

    def test_the_border_of_the_image_cuts_nothing(self):
        boxes = [(0, 0, 9, 9), (40, 50, 50, 60)]
        assert self.keep(0, *boxes)[1] == [False, False]
        assert self.keep(0, (60, 0, 99, 20))[1] == [True]
        assert self.keep(1, (1, 0, 50, 20), (90, 0, 100, 20))[1] == [True, False]

    def test_rows_have_their_own_height(self):
        grid = tiling.make_grid(60, 176, 100, 24)
        found = concatenate([rectangle(10, 60, 20, 98), rectangle(30, 60, 40, 99)])
        assert tiling.keep_core(found, grid, 0, 0).cut.tolist() == [False, True]


class TestJoin:
    def join(self, first, second, cut=(False, False)):
        parts = [
            Part(nuclei, np.full(len(nuclei), is_cut))
            for nuclei, is_cut in zip((first, second), cut, strict=True)
        ]
        return [part.nuclei.boxes().tolist() for part in tiling.join_parts(parts, [100], 0)]

    def test_the_center_decides_between_two_whole_ones(self):
        # Centers at 99 and at 99.5: both on the first's side, whatever the scores.
        first, second = rectangle(90, 0, 108, 9, 0.6), rectangle(90, 0, 109, 9, 0.9)
        assert self.join(first, second) == [[[90, 0, 108, 9]], []]

    def test_neither_has_the_center_on_its_side(self):
        # Centers at 100.5 and at 99.5: the score decides, and the nucleus is not lost.
        first, second = rectangle(91, 0, 110, 9, 0.6), rectangle(90, 0, 109, 9, 0.9)
        assert self.join(first, second) == [[], [[90, 0, 109, 9]]]

    def test_both_have_the_center_on_their_side(self):
        first, second = rectangle(90, 0, 109, 9, 0.9), rectangle(91, 0, 110, 9, 0.6)
        assert self.join(first, second) == [[[90, 0, 109, 9]], []]

    def test_whole_before_cut(self):
        first, second = rectangle(60, 0, 110, 9, 0.9), rectangle(60, 0, 130, 9, 0.6)
        assert self.join(first, second, cut=(True, False)) == [[], [[60, 0, 130, 9]]]

    def test_two_pieces_of_one_larger_than_the_overlap(self):
        # They share 20 of 80 and 60 px: too little for two whole ones.
        first, second = rectangle(40, 0, 120, 9, 0.9), rectangle(100, 0, 160, 9, 0.6)
        assert self.join(first, second, cut=(True, True)) == [[[40, 0, 120, 9]], []]
        assert self.join(first, second) == [[[40, 0, 120, 9]], [[100, 0, 160, 9]]]

    @pytest.mark.parametrize(
        ('cut', 'shared', 'kept'), [(False, 5, 2), (False, 6, 1), (True, 1, 2), (True, 2, 1)]
    )
    def test_how_much_two_views_of_one_share(self, cut, shared, kept):
        # Of 10 columns more than half, or than a tenth if both are cut.
        first = rectangle(92, 0, 102, 9)
        second = rectangle(102 - shared, 0, 112 - shared, 9)
        assert sum(map(len, self.join(first, second, cut=(cut, cut)))) == kept

    def test_touching_nuclei_stay_two(self):
        # They share 3 of 10 columns.
        first, second = rectangle(94, 0, 104, 9), rectangle(101, 0, 111, 9)
        assert self.join(first, second) == [[[94, 0, 104, 9]], [[101, 0, 111, 9]]]

    def test_boxes_alone_would_take_two_for_one(self):
        # Two triangles whose boxes are the same share nothing but the diagonal.
        lower = np.tri(12, dtype=bool)
        first, second = nucleus(lower, (94, 0)), nucleus(~lower, (94, 0))
        assert [len(part) for part in self.join(first, second)] == [1, 1]

    def test_one_view_split_the_nucleus(self):
        first = concatenate([rectangle(85, 0, 98, 9, 0.6), rectangle(98, 0, 112, 9, 0.6)])
        # Left half and whole have their centers on their own sides; the whole is more certain.
        assert self.join(first, rectangle(88, 0, 114, 9, 0.9)) == [[], [[88, 0, 114, 9]]]
        # Less certain, it gives way to the half, and the other half stays too.
        first, second = rectangle(85, 0, 98, 9, 0.6), rectangle(88, 0, 114, 9, 0.5)
        both = concatenate([first, rectangle(98, 0, 112, 9, 0.6)])
        assert self.join(both, second) == [[[85, 0, 98, 9], [98, 0, 112, 9]], []]

    def test_seen_by_one_only(self):
        seen = rectangle(92, 0, 104, 9)
        assert self.join(seen, EMPTY) == [[[92, 0, 104, 9]], []]
        assert self.join(EMPTY, seen) == [[], [[92, 0, 104, 9]]]
        assert self.join(EMPTY, EMPTY) == [[], []]

    def test_parts_are_asked_for_one_by_one(self):
        asked = []

        def parts():
            for index in range(4):
                asked.append(index)
                yield NOTHING

        joined = tiling.join_parts(parts(), [100, 200, 300], 1)
        next(joined)
        assert asked == [0, 1]
        assert len(list(joined)) == 3


class TestScene:
    @pytest.mark.parametrize(('tile', 'overlap'), [(128, 56), (200, 56), (301, 64), (400, 56)])
    def test_each_once_and_whole(self, tile, overlap):
        scene = scattered(400, 330)
        found = segment(scene, tiling.make_grid(400, 330, tile, overlap))
        check_once_and_whole(scene, found.nuclei)
        assert not found.cut.any()

    @pytest.mark.parametrize('shift', [(-9, 0), (-5, -14), (-30, -23)])
    def test_shifted_grid(self, shift):
        scene = scattered(360, 300)
        grid = tiling.make_grid(360 + 30, 300 + 30, 160, 56)
        check_once_and_whole(scene, segment(scene, grid, shift).nuclei)

    def test_on_seams_and_on_corners_of_four_tiles(self):
        grid = tiling.make_grid(420, 420, 180, 60)
        scene = [ellipse(x, y) for x, y in product(grid.seams_x, grid.seams_y)]
        for seam in grid.seams_x:
            scene += [ellipse(seam + place // 40 - 3, place) for place in range(20, 90, 24)]
            scene += [ellipse(place, seam + place // 40 - 3) for place in range(20, 90, 24)]
        check_once_and_whole(scene, segment(scene, grid).nuclei)

    def test_larger_than_the_overlap(self):
        # Every tile cuts it; one piece stays, and it is known to be cut.
        giant = (np.ones((29, 29), bool), (136, 30))
        found = segment([giant], tiling.Grid([0, 138], [162, 300], [0], [100]))
        assert found.cut.tolist() == [True]
        found = segment([giant], tiling.Grid([0, 118], [182, 300], [0], [100]))
        assert found.cut.tolist() == [False]

    def test_density_has_no_dip_at_seams(self):
        scene = scattered(900, 260, step=16, seed=1)
        grid = tiling.make_grid(900, 260, 180, 56)
        truth = density(concatenate([nucleus(*item) for item in scene]), grid.seams_x)
        found = segment(scene, grid, missed=0.05).nuclei
        # Of 20 nuclei a tile misses 1, so that 0.9 is not reached by chance.
        assert 0.9 < density(found, grid.seams_x) / truth < 1.1

        # What loses nuclei at seams is seen: tiles that meet, and what they cut left out.
        parts = []
        for left in range(0, 900, 180):
            seen = detect(scene, left, 0, 180, 260, missed=0.05)
            low, _, high, _ = seen.boxes().T
            whole = (low > 0) & (high < 180)
            parts.append(seen.take(whole).moved(left, 0))
        cut = concatenate(parts)
        assert density(cut, range(180, 900, 180)) / truth < 0.7


def density(found, seams, near=8):
    """Nuclei a px of width within 8 px of seams, in units of those a px elsewhere."""
    x = found.centroids[:, 0]
    at_seam = (np.abs(x[:, None] - np.array(seams)) < near).any(axis=1)
    inside = (x > 30) & (x < 870)
    width = 2 * near * len(seams)
    return (at_seam.sum() / width) / ((inside & ~at_seam).sum() / (840 - width))


def columns(part):
    return [*part.nuclei.columns().values(), part.cut]


class TestShard:
    def test_comes_back(self, tmp_path):
        nuclei = concatenate([rectangle(1, 2, 5, 9), rectangle(3, 3, 4, 4, 0.25)])
        row = Part(nuclei, np.array([True, False]))
        path = tmp_path / 'row_00003.npz'
        shards.write_row(path, row, [(40_000, 'nothing there: \u00b5m')], 2.5)
        again = shards.read_row(path)
        for one, other in zip(columns(row), columns(again), strict=True):
            assert one.dtype == other.dtype
            assert one.tolist() == other.tolist()
        assert shards.read_broken(path) == [(40_000, 'nothing there: \u00b5m')]
        assert shards.read_seconds(path) == 2.5
        assert [item.name for item in tmp_path.iterdir()] == ['row_00003.npz']

    def test_of_another_place(self, tmp_path):
        path = tmp_path / 'row.npz'
        shards.write_row(path, NOTHING, place='3 of a')
        assert len(shards.read_row(path, '3 of a').nuclei) == 0
        with pytest.raises(UserError) as error:
            shards.read_row(path, '4 of a')
        message = 'is the row of tiles 3 of a, expected 4 of a; remove it'
        assert str(error.value) == f'{path}: {message}'

    def test_empty(self, tmp_path):
        shards.write_row(tmp_path / 'row.npz', NOTHING)
        assert len(shards.read_row(tmp_path / 'row.npz').nuclei) == 0
        assert shards.read_broken(tmp_path / 'row.npz') == []

    @pytest.mark.parametrize('size', [0, 300])
    def test_broken_file(self, tmp_path, size):
        path = tmp_path / 'row.npz'
        shards.write_row(path, Part(rectangle(1, 2, 5, 9), np.zeros(1, bool)))
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(UserError, match=r'row\.npz: no readable row of tiles'):
            shards.read_row(path)
        with pytest.raises(UserError, match=r'gone\.npz: No such file'):
            shards.read_row(tmp_path / 'gone.npz')

    def test_file_that_holds_code_is_not_run(self, tmp_path):
        class Code:
            def __reduce__(self):
                return open, (str(tmp_path / 'ran'), 'w')

        path = tmp_path / 'row.npz'
        with path.open('wb') as file:
            np.savez(file, place=np.array(Code(), dtype=object))
        with pytest.raises(UserError, match=r'row\.npz: no readable row of tiles'):
            shards.read_row(path)
        assert not (tmp_path / 'ran').exists()

    def test_a_row_that_is_not_written_to_its_end_is_none(self, tmp_path, monkeypatch):
        def fill(file, **_):
            file.write(b'half')
            raise OSError(errno.ENOSPC, 'No space left on device')

        monkeypatch.setattr(np, 'savez', fill)
        with pytest.raises(UserError, match='No space left'):
            shards.write_row(tmp_path / 'row.npz', NOTHING)
        assert list(tmp_path.iterdir()) == []


def test_take_boxes_and_moved():
    both = concatenate([rectangle(1, 2, 5, 9), rectangle(3, 3, 4, 4)])
    assert both.take(np.array([1, 0, 1])).boxes().tolist() == [
        [3, 3, 4, 4],
        [1, 2, 5, 9],
        [3, 3, 4, 4],
    ]
    assert both.take(np.array([False, True])).scores.tolist() == both.scores[1:].tolist()
    moved = both.moved(10, -2)
    assert moved.boxes().tolist() == [[11, 0, 15, 7], [13, 1, 14, 2]]
    assert moved.centroids.tolist() == [[13, 3.5], [13.5, 1.5]]
    assert EMPTY.boxes().shape == (0, 4)
    assert shapely.area(both.polygons()).tolist() == [28, 1]
