"""API keys: what they look like, and what is kept of them."""

import re

from ci_common import generate_api_key, hash_api_key


def test_a_key_has_its_shape() -> None:
    """`ci_` and 40 characters that need no quoting in a URL."""
    for _ in range(100):
        assert re.fullmatch(r"ci_[A-Za-z0-9_-]{40}", generate_api_key())


def test_keys_are_random() -> None:
    """No two are equal, and each of the 40 characters takes all of its 64 values."""
    keys = [generate_api_key() for _ in range(2000)]
    assert len(set(keys)) == 2000
    assert all(len({key[place] for key in keys}) == 64 for place in range(3, 43))


def test_a_hash_is_sha_256_in_hex() -> None:
    """It can be made with any other tool."""
    assert hash_api_key("ci_test") == "03f90fce29bffd8a25e2e5d2447591c1accd50e5ee14e871bf42e88d7a9cf14b"


def test_other_keys_have_other_hashes() -> None:
    """Case counts, and so does every character."""
    assert len({hash_api_key(key) for key in ("ci_a", "ci_A", "ci_a ", "ci_")}) == 4
