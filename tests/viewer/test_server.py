"""The server: what it answers, to whom, and that nothing else comes out of it."""

import asyncio
import json
import os
import re
import threading

import cv2
import numpy as np
import pytest
from starlette.testclient import TestClient

from nucseg_mmdet.viewer.index import NucleiIndex
from nucseg_mmdet.viewer.server import PAGE, make_app
from nucseg_mmdet.viewer.site import Site
from tests.viewer.conftest import HEIGHT, MPP, NAME, WIDTH, table, write_again, write_results

TOKEN = 'token-of_the.test'
HOST = '127.0.0.1:4321'


@pytest.fixture(scope='module')
def client(shared_folder):
    with serve(shared_folder) as client:
        yield client


def serve(folder, slides=()):
    app = make_app(Site(folder, slides), TOKEN, [HOST])
    return TestClient(app, base_url=f'http://{HOST}/{TOKEN}', raise_server_exceptions=True)


def describe(client, number=0):
    """What is told of a slide, once its index is made."""
    while (answer := client.get(f'/slides/{number}/info')).status_code == 202:
        assert answer.json().keys() == {'done', 'total'}
    return answer


def get(client, path, **kwargs):
    """A request that is sent as it stands: the client would tidy dots away."""
    return client.get(f'http://{HOST}{path}', **kwargs)


class TestPage:
    def test_every_file_of_the_page_is_there(self, client):
        for name, (_, _, kind) in PAGE.items():
            answer = client.get(f'/{name}')
            assert answer.status_code == 200, name
            assert answer.headers['content-type'].startswith(kind)

    def test_page_asks_for_nothing_else(self, client):
        """Every name that the page or a module of it loads is served; none is elsewhere."""
        for name, (_, _, kind) in PAGE.items():
            if name == 'openseadragon.js':
                continue
            text = client.get(f'/{name}').text
            loaded = re.findall(r'(?:src|href)="([^"]+)"|from \'([^\']+)\'', text)
            for parts in loaded:
                address = ''.join(parts).removeprefix('./')
                assert address in PAGE or address == 'data:,', (name, kind, address)
            assert 'https:' not in text

    def test_library_is_whole_and_has_its_license_beside_it(self, client):
        text = client.get('/openseadragon.js').text
        assert text.startswith('//! openseadragon 6.')
        from importlib.resources import files

        notice = files('nucseg_mmdet.viewer').joinpath('static/openseadragon/LICENSE.txt')
        assert 'Redistribution and use in source and binary forms' in notice.read_text()

    def test_slides_are_listed(self, client):
        listed = client.get('/slides.json').json()
        assert [slide['name'] for slide in listed['slides']] == [NAME, 'second']
        assert (
            listed['slides'][0] | dict(width=WIDTH, height=HEIGHT, mpp=MPP, nuclei=468)
            == (listed['slides'][0])
        )
        assert listed['problems'] == []

    def test_slide_whose_name_is_no_text(self, tmp_path):
        """As of a file from a disk of another system, whose bytes are no UTF-8."""
        name = os.fsdecode(b'a\xff')
        write_results(tmp_path)
        path = tmp_path / f'{NAME}.summary.json'
        summary = json.loads(path.read_text())
        (tmp_path / f'{name}.summary.json').write_text(json.dumps(summary | dict(name=name)))
        with serve(tmp_path) as client:
            listed = client.get('/slides.json').json()['slides']
            assert sorted(slide['name'] for slide in listed) == sorted([NAME, name])
            number = [slide['name'] for slide in listed].index(name)
            assert describe(client, number).json()['name'] == name

    def test_info(self, client):
        info = describe(client).json()
        assert info['num'] == 468
        assert info['counts'][0][0] == 468
        assert info['picture'] == dict(tile=512, overlap=1, levels=13, problem=None)
        assert info['full_density'] == pytest.approx(1924, abs=1)
        assert info['region'] is None
        assert 'path' not in json.dumps(info)

    def test_info_of_a_part(self, folder):
        write_results(folder, identity=dict(region=[100, 0, 900, 700]))
        with serve(folder) as client:
            assert describe(client).json()['region'] == [100, 0, 900, 700]

    def test_info_tells_how_far_an_index_is_while_it_is_made(self, folder, monkeypatch):
        going_on = threading.Event()

        def make(result, tell):
            tell(3, 468)
            assert going_on.wait(60)
            return NucleiIndex(result, tell)

        monkeypatch.setattr('nucseg_mmdet.viewer.site.NucleiIndex', make)
        monkeypatch.setattr('nucseg_mmdet.viewer.server.PATIENCE', 0.2)
        with serve(folder) as client:
            for _ in range(2):
                answer = client.get('/slides/0/info')
                assert (answer.status_code, answer.json()) == (202, dict(done=3, total=468))
            going_on.set()
            assert describe(client).json()['num'] == 468

    def test_page_is_asked_for_again_after_an_update(self, client):
        for name in PAGE:
            assert client.get(f'/{name}').headers['cache-control'] == 'no-cache'

    def test_no_answer_tells_where_files_lie(self, client, shared_folder):
        for path in ('/slides.json', '/slides/0/info', '/slides/0/nucleus?id=3'):
            assert str(shared_folder) not in client.get(path).text


class TestContent:
    def test_image_tile(self, client):
        answer = client.get('/slides/0/image/12/0_0.jpg')
        assert answer.headers['content-type'] == 'image/jpeg'
        image = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)
        assert image.shape == (513, 513, 3)  # and a px of its neighbors
        assert np.abs(image[50, 50].astype(int) - (120, 60, 70)).max() < 8
        assert np.abs(image[100, 100].astype(int) - (200, 170, 210)).max() < 8

    def test_tissue(self, client):  # all of this slide
        (ring,) = client.get('/slides/0/tissue.json').json()['rings']
        assert {*ring[::2]} == {0, WIDTH}
        assert {*ring[1::2]} == {0, HEIGHT}

    def test_tile_of_nuclei(self, client):
        num, rings, points, _ = np.frombuffer(client.get('/slides/0/tiles/0/0_0').content, '<u4', 4)
        assert (num, rings, points) == (100, 0, 0)
        for place, count in (('2_0', 60), ('0_1', 80), ('0_2', 0)):
            data = client.get(f'/slides/0/tiles/0/{place}').content
            assert np.frombuffer(data, '<u4', 1) == count
        data = client.get('/slides/1/tiles/0/0_0?outlines=1&column=score').content
        assert np.frombuffer(data, '<u4', 4).tolist() == [100, 100, 400, 0]
        data = client.get('/slides/1/tiles/1/0_0?outlines=1').content  # only where they are seen
        assert np.frombuffer(data, '<u4', 4)[1:3].tolist() == [0, 0]

    def test_density(self, client):
        data = client.get('/slides/0/density?score=0.7&column=area_um2').content
        height, width = np.frombuffer(data, '<u4', 2)
        assert np.frombuffer(data, '<f4', 1, 8) == 128
        assert (height, width) == (HEIGHT // 128 + 1, WIDTH // 128 + 1)
        assert len(data) == 16 + 2 * 4 * height * width
        counts, areas = np.frombuffer(data, '<f4', -1, 16).reshape(2, height, width)
        assert counts.mean() > 500  # per mm2
        assert 10 < areas.min() <= areas.max() < 36

    def test_view(self, client, rows):
        found = client.get('/slides/0/view?x0=0&y0=0&x1=2600&y1=1800&score=0.9&column=score').json()
        assert found['count'] == sum(float(row['score']) >= 0.9 for row in rows)

    def test_nucleus(self, client, rows):
        found = client.get('/slides/0/nucleus?x=55&y=52&radius=2').json()
        assert found['row'] == rows[0]
        assert found['centroid'] == [50, 50]
        assert found['rings'] == [[[38, 42], [62, 42], [62, 58], [38, 58]]]
        assert client.get('/slides/0/nucleus?x=0&y=0&radius=2').json() is None
        assert client.get('/slides/0/nucleus?x=55&y=52&radius=2&score=0.7').json() is None
        assert client.get('/slides/0/nucleus?id=3').json()['row'] == rows[2]
        assert client.get('/slides/0/nucleus?id=469').json() is None


class TestGuard:
    def test_host_of_another_site_is_refused(self, client):
        """A page of evil.example whose name was made to point here has its name as host."""
        for host in ('evil.example', 'evil.example:4321', '127.0.0.1', ''):
            answer = client.get('/slides.json', headers={'Host': host})
            assert answer.status_code == 400, host

    @pytest.mark.parametrize(
        'path', ['/', '/slides.json', '/wrong/', f'/{TOKEN}x/', f'/{TOKEN[:-1]}/', '//', '/é/']
    )
    def test_without_the_token_nothing_is_told(self, client, path):
        answer = get(client, path)
        assert answer.status_code == 403
        assert NAME not in answer.text

    def test_nothing_can_be_changed(self, client):
        for method in ('POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS'):
            assert client.request(method, '/slides.json').status_code == 405

        assert client.head('/slides.json').status_code == 200

    def test_every_answer_is_hardened(self, client):
        for path in ('/', '/slides/0/info', '/none', '/slides/0/image/12/0_0.jpg'):
            headers = client.get(path).headers
            assert "default-src 'none'" in headers['content-security-policy']
            assert 'unsafe-inline' not in headers['content-security-policy']
            assert "frame-ancestors 'none'" in headers['content-security-policy']
            assert headers['referrer-policy'] == 'no-referrer'
            assert headers['x-content-type-options'] == 'nosniff'
            assert headers['cross-origin-resource-policy'] == 'same-origin'
            assert headers['cross-origin-opener-policy'] == 'same-origin'
            assert 'access-control-allow-origin' not in headers
        assert client.get('/', headers={'Host': 'x'}).headers['referrer-policy'] == 'no-referrer'

    def test_path_that_does_not_begin_with_a_slash(self, shared_folder):
        """As of ``OPTIONS *``, which the client of the other tests cannot send."""
        sent = []

        async def send(message):
            sent.append(message)

        scope = dict(type='http', method='OPTIONS', path='*', headers=[(b'host', HOST.encode())])
        asyncio.run(make_app(Site(shared_folder), TOKEN, [HOST])(scope, None, send))
        assert sent[0]['status'] == 403

    @pytest.mark.parametrize(
        'path',
        [
            '/../../../../etc/passwd',
            '/..%2f..%2f..%2fetc%2fpasswd',
            '/%2e%2e/%2e%2e/etc/passwd',
            '//etc/passwd',
            '/%2fetc%2fpasswd',
            '/static/server.py',
            '/server.py',
            '/main.js%00.css',
            '/slides/0/../../../etc/passwd',
            f'/{NAME}.csv',
            f'/slides/0/{NAME}.csv',
            '/slides/0/image/12/..%2f..%2fetc_passwd.jpg',
            '/slides/-1/info',
            '/slides/2/info',
            '/slides/0x0/info',
            '/slides/0/image/13/0_0.jpg',
            '/slides/0/image/12/99_0.jpg',
            '/slides/0/image/999999999999/0_0.jpg',
            '/slides/0/tiles/99/0_0',
            '/slides/0/tiles/0/99999999999999999999_0',
            pytest.param(f'/slides/0/tiles/0/{"9" * 5000}_0', id='more digits than Python reads'),
        ],
    )
    def test_paths_lead_nowhere(self, client, path):
        answer = get(client, f'/{TOKEN}{path}')
        assert answer.status_code in (400, 403, 404, 422), answer.text
        assert 'root:' not in answer.text
        assert 'import' not in answer.text
        assert answer.json().keys() == {'error'}

    @pytest.mark.parametrize(
        'path',
        [
            '/slides/0/tiles/0/0_0?column=none',
            '/slides/0/density?column=../x',
            '/slides/0/density?score=high',
            '/slides/0/density?score=nan&hidden=a',
            '/slides/0/view?x0=0&y0=0&x1=5',
            '/slides/0/view?x0=nan&y0=0&x1=5&y1=5&column=score',
            '/slides/0/view?x0=0&y0=0&x1=1e30&y1=5&column=score',
            '/slides/0/nucleus?id=one',
            '/slides/0/nucleus?x=1',
        ],
    )
    def test_odd_questions_get_one_line(self, client, path):
        answer = client.get(path)
        assert answer.status_code == 400
        assert len(answer.json()['error'].splitlines()) == 1


class TestOddResults:
    def test_files_that_do_not_match(self, folder):
        path = folder / f'{NAME}.csv'
        path.write_text('\n'.join(path.read_text().splitlines()[:-1]) + '\n')
        with serve(folder) as client:
            answer = describe(client)
            assert answer.status_code == 422
            assert 'more outlines, expected 467' in answer.json()['error']
            write_results(folder)  # mended: the same server shows it
            assert describe(client).status_code == 200

    def test_segmented_again_while_the_page_is_open(self, folder):
        nucleus, tile = '/slides/0/nucleus?x=55&y=52&radius=2', '/slides/0/tiles/0/0_0'
        view = '/slides/0/view?x0=0&y0=0&x1=5&y1=5&column=score'
        with serve(folder) as client:
            describe(client)
            assert client.get(nucleus).json()['row'] == table(folder)[0]
            write_again(folder)
            for path in (nucleus, tile, view, '/slides/0/density'):
                answer = client.get(path)
                assert answer.status_code == 422
                said = f'{NAME}: the results have changed, load the page again'
                assert answer.json()['error'] == said
            info = describe(client).json()
            assert info['lowest_score'] == pytest.approx(0.12345)
            assert info['facts']['tissue_mm2'] == 0.5
            assert client.get(nucleus).json()['row'] == table(folder)[0]

    def test_segmented_again_before_a_slide_is_opened(self, folder):
        with serve(folder) as client:
            write_again(folder)
            info = describe(client).json()
            assert info['lowest_score'] == pytest.approx(0.12345)
            assert info['facts']['tissue_mm2'] == 0.5

    def test_page_lists_what_the_slides_have_now(self, folder):
        with serve(folder) as client:
            write_results(folder, nuclei=7)
            assert client.get('/slides.json').json()['slides'][0]['nuclei'] == 7

    def test_slides_that_come_and_go_while_the_server_runs(self, folder):
        """A page lists the folder as it is; numbers mean the same to pages that are open."""

        def listed():
            return [
                (one['number'], one['name']) for one in client.get('/slides.json').json()['slides']
            ]

        write_results(folder, 'x')
        with serve(folder) as client:
            assert listed() == [(0, NAME), (1, 'x')]
            write_results(folder, 'a')
            (folder / 'bad.summary.json').write_text('[]')
            assert listed() == [(2, 'a'), (0, NAME), (1, 'x')]
            assert 'bad.summary.json' in client.get('/slides.json').json()['problems'][0]
            assert [describe(client, number).json()['name'] for number in (0, 1, 2)] == [
                NAME,
                'x',
                'a',
            ]
            path = folder / f'{NAME}.summary.json'
            summary = path.read_text()
            path.unlink()
            (folder / 'bad.summary.json').unlink()
            assert listed() == [(2, 'a'), (1, 'x')]
            assert client.get('/slides.json').json()['problems'] == []
            for asked in ('info', 'nucleus?id=1', 'tissue.json'):
                answer = client.get(f'/slides/0/{asked}')
                said = f'{NAME}: no longer in the folder, load the page again'
                assert (answer.status_code, answer.json()['error']) == (404, said)
            assert describe(client, 1).json()['name'] == 'x'
            path.write_text(summary)
            assert listed() == [(2, 'a'), (0, NAME), (1, 'x')]
            assert describe(client, 0).json()['name'] == NAME

    def test_folder_that_is_emptied_while_the_server_runs(self, folder):
        with serve(folder) as client:
            (folder / f'{NAME}.summary.json').unlink()
            told = client.get('/slides.json').json()
            assert told['slides'] == []
            assert 'expected the results of nucseg segment' in told['problems'][0]

    def test_given_folder_of_slides_that_goes_away(self, folder):
        given = folder / 'given'
        given.mkdir()
        (folder / f'{NAME}.png').rename(given / f'{NAME}.png')
        with serve(folder, [given]) as client:
            given.rename(folder / 'away')
            told = client.get('/slides.json').json()
            assert [one['has_image'] for one in told['slides']] == [False]
            assert told['problems'] == [f'{given}: no such file or folder']

    def test_slide_that_was_given_stays_when_the_page_is_loaded_again(self, folder):
        moved = folder / 'elsewhere' / f'{NAME}.png'
        moved.parent.mkdir()
        (folder / f'{NAME}.png').rename(moved)
        with serve(folder, [moved]) as client:
            for _ in range(2):
                assert client.get('/slides.json').json()['slides'][0]['has_image']
                assert client.get('/slides/0/image/12/0_0.jpg').status_code == 200

    def test_slide_that_is_another_one_is_not_shown_in_parts(self, folder):
        """Neither from what the server keeps, nor from what the browser does."""
        slide = folder / f'{NAME}.png'
        paths = ('/slides/0/image/12/0_0.jpg', '/slides/0/tissue.json')
        with serve(folder) as client:
            kept = {path: client.get(path) for path in paths}
            for path, answer in kept.items():
                assert 'no-cache' in answer.headers['cache-control']
                known = {'If-None-Match': answer.headers['etag']}
                assert client.get(path, headers=known).status_code == 304
            gray = np.full((HEIGHT, WIDTH, 3), 30, np.uint8)
            gray[:, WIDTH // 2 :] = 255  # glass
            slide.write_bytes(cv2.imencode('.png', gray)[1].tobytes())
            for path, answer in kept.items():
                known = {'If-None-Match': answer.headers['etag']}
                again = client.get(path, headers=known)
                assert again.status_code == 200
                assert again.content != answer.content
            slide.unlink()
            for path in paths:
                assert client.get(path).status_code == 422

    def test_browser_keeps_no_tile_of_older_results(self, folder):
        path = '/slides/0/tiles/0/0_0'
        with serve(folder) as client:
            answer = client.get(path)
            assert 'no-cache' in answer.headers['cache-control']
            known = {'If-None-Match': answer.headers['etag']}
            assert client.get(path, headers=known).status_code == 304
            write_again(folder)
            describe(client)
            again = client.get(path, headers=known)
            assert again.status_code == 200
            assert again.content != answer.content

    @pytest.mark.parametrize('number', ['NaN', '1e300', '-1e999'])
    def test_a_vertex_that_is_on_no_slide(self, folder, number):
        path = folder / f'{NAME}.geojson'
        path.write_text(re.sub(r'\[\[\[[^,]+', f'[[[{number}', path.read_text(), count=1))
        with serve(folder) as client:
            answer = describe(client)
            assert answer.status_code == 422
            assert f'{NAME}.geojson: places that are not finite' in answer.json()['error']

    def test_what_nobody_foresaw_is_one_line(self, folder, monkeypatch):
        def fail(*_):
            raise ZeroDivisionError('no part of it')

        monkeypatch.setattr(NucleiIndex, 'nucleus_at', fail)
        with serve(folder) as client:
            describe(client)
            answer = client.get('/slides/0/nucleus?x=1&y=1&radius=1')
            assert answer.status_code == 500
            assert 'unforeseen ZeroDivisionError: no part of it' in answer.json()['error']

    def test_slide_that_is_gone(self, folder):
        (folder / f'{NAME}.png').unlink()
        with serve(folder) as client:
            info = describe(client).json()
            assert 'no such file, expected the slide' in info['picture']['problem']
            assert client.get('/slides/0/image/12/0_0.jpg').status_code == 422
            assert client.get('/slides/0/tiles/0/0_0').status_code == 200

    def test_damaged_slide(self, folder):
        path = folder / f'{NAME}.png'
        path.write_bytes(path.read_bytes()[:5000])
        with serve(folder) as client:
            assert 'PNG' in describe(client).json()['picture']['problem']
