"""The cache is bounded, exact, and counts what it does."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.cache import ENTRY_OVERHEAD_BYTES, EmbeddingCache, cache_key, normalise
from analyzer.encoder import HashingEncoder

ENCODER = HashingEncoder()
ENTRY_BYTES = ENCODER.dimension * 4 + ENTRY_OVERHEAD_BYTES


def test_a_vector_comes_back_as_it_was_put() -> None:
    """Bit for bit, read-only, and not tied to the batch that it was a row of."""
    cache = EmbeddingCache(10**6, ENCODER.fingerprint)
    vectors = ENCODER.encode(["one", "two"])
    kept = vectors.copy()
    cache.put(["one", "two"], vectors)
    vectors[:] = 0
    one, missing, two = cache.get(["one", "three", "two"])
    assert missing is None
    assert one is not None
    assert two is not None
    assert (one == kept[0]).all()
    assert (two == kept[1]).all()
    assert one.base is None
    with pytest.raises(ValueError, match="read-only"):
        one[0] = 1.0
    assert (cache.hits, cache.misses, len(cache)) == (2, 1, 2)


def test_bytes_are_bounded_and_the_least_recently_used_goes() -> None:
    """Room for three: the one that was not asked for is evicted by a fourth."""
    cache = EmbeddingCache(3 * ENTRY_BYTES, ENCODER.fingerprint)
    texts = ["a", "b", "c"]
    cache.put(texts, ENCODER.encode(texts))
    cache.get(["a", "c"])
    cache.put(["d"], ENCODER.encode(["d"]))
    assert [vector is not None for vector in cache.get(["a", "b", "c", "d"])] == [
        True, False, True, True,
    ]  # fmt: skip
    assert cache.nbytes == 3 * ENTRY_BYTES <= cache.max_bytes
    assert cache.evictions == 1


def test_putting_a_text_again_counts_nothing_twice() -> None:
    """Bytes, entries and evictions are those of one entry."""
    cache = EmbeddingCache(10**6, ENCODER.fingerprint)
    for _ in range(3):
        cache.put(["a"], ENCODER.encode(["a"]))
    assert (len(cache), cache.nbytes, cache.evictions) == (1, ENTRY_BYTES, 0)


def test_a_cache_without_room_keeps_nothing() -> None:
    """Zero bytes switch it off."""
    cache = EmbeddingCache(0, ENCODER.fingerprint)
    cache.put(["a"], ENCODER.encode(["a"]))
    assert (cache.get(["a"]), len(cache), cache.nbytes) == ([None], 0, 0)


def test_vectors_of_two_encoders_never_stand_for_each_other() -> None:
    """The fingerprint is part of the key."""
    assert cache_key("sha:bf16:256", "text") != cache_key("sha:f32:256", "text")
    # Nor can a text imitate another fingerprint.
    assert cache_key("sha", "x\0text") != cache_key("sha\0x", "y")


@given(st.text(max_size=60))
def test_normalising_twice_is_normalising_once(text: str) -> None:
    """And white space and ASCII case are all that it takes away."""
    once = normalise(text)
    assert normalise(once) == once
    assert normalise(f"\n {text}\t") == once


def test_texts_that_the_tokenizer_tells_apart_have_different_keys() -> None:
    """A final sigma, a control character, an accent and a special token are not normalised away."""
    for one, other in (
        ("ΟΔΟΣ", "οδος"),
        ("a\x1cb", "a b"),
        ("é", "e"),
        ("İ", "i"),
        ("[SEP] x", "[sep] x"),
    ):
        assert cache_key("f", one) != cache_key("f", other)
    assert cache_key("f", "Sort  a\nLIST") == cache_key("f", "sort a list")


def test_threads_may_share_it() -> None:
    """Under four threads the counters add up and the bound holds."""
    cache = EmbeddingCache(20 * ENTRY_BYTES, ENCODER.fingerprint)

    def work(seed: int) -> None:
        texts = [f"text {(seed * 7 + number) % 40}" for number in range(10)]
        for _ in range(20):
            cache.get(texts)
            cache.put(texts, ENCODER.encode(texts))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(8)))
    assert cache.hits + cache.misses == 8 * 20 * 10
    assert cache.nbytes <= cache.max_bytes
    assert len(cache) == 20
