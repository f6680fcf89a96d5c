import numpy as np

from nucseg_mmdet.utils.byte_cache import ByteCache


def test_cache_keeps_what_was_used_last():
    cache, made = ByteCache(limit=20), []

    def get(key, size=8):
        return cache.get(key, lambda: made.append(key) or bytes(size))

    for key in 'aabac':  # c takes the place of b: a was used later
        get(key)
    assert made == ['a', 'b', 'c']
    get('a'), get('b')
    assert made == ['a', 'b', 'c', 'b']
    assert len(get('large', 100)) == 100
    get('large')
    assert made[-1] == 'large'
    assert made.count('large') == 1


def test_cache_of_arrays_counts_their_bytes():
    cache, made = ByteCache(limit=100), []

    def get(key):
        return cache.get(key, lambda: made.append(key) or np.zeros(10, np.float32))

    for key in 'abab':
        get(key)
    assert made == ['a', 'b']
    get('c')
    get('b')
    get('a')
    assert made == ['a', 'b', 'c', 'a']


def test_cleared_cache_has_room_for_as_much_again():
    cache, made = ByteCache(limit=20), []

    def get(key):
        return cache.get(key, lambda: made.append(key) or bytes(8))

    get('a'), get('b')
    cache.clear()
    get('a'), get('b'), get('a')
    assert made == ['a', 'b', 'a', 'b']
