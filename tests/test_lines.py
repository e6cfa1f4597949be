"""`kv.net.lines`: octets to lines, however they are cut."""

import random

import pytest

from kv.net.lines import BATCH, Lines

SIZE = 20


def taken(lines: Lines, most: int = 1 << 30) -> list[bytes]:
    """Takes up to `most` lines."""
    found: list[bytes] = []
    while lines.waiting and len(found) < most:
        for line in lines.next():
            found.append(line)
            if len(found) == most:
                break
    return found


@pytest.mark.parametrize("seed", range(40))
def test_whatever_the_cuts_the_lines_are_the_same(seed: int) -> None:
    rng = random.Random(seed)
    sent = [rng.randbytes(rng.randrange(SIZE)).replace(b"\n", b".") for _ in range(300)]
    octets = b"".join(line + b"\n" for line in sent)
    lines, found, start = Lines(SIZE), [], 0
    while start < len(octets):
        end = start + rng.choice((1, 2, 7, 30, 4000))
        first = lines.feed(octets[start:end])
        assert (first is not None) == lines.waiting
        while lines.waiting:
            found += taken(lines, rng.randint(1, 70))
            assert lines.taken == len(found)
        assert not lines.too_long
        start = end
    assert found == sent and lines.octets == (0, 0)


def test_what_is_not_taken_stays() -> None:
    lines = Lines(SIZE)
    lines.feed(b"a\nb\nc\nd")
    assert taken(lines, 1) == [b"a"] and lines.waiting
    assert lines.octets == (1, 4)
    assert taken(lines) == [b"b", b"c"] and not lines.waiting
    lines.feed(b"\n")
    assert taken(lines) == [b"d"]


def test_no_more_than_a_batch_is_cut_at_a_time() -> None:
    lines = Lines(SIZE)
    first = lines.feed(b"x\n" * 1000)
    assert first is not None and len(list(first)) == BATCH
    assert lines.waiting and len(taken(lines)) == 1000 - BATCH


@pytest.mark.parametrize("size", [1, 2, SIZE])
def test_a_line_of_the_longest_size_passes_and_one_octet_more_does_not(size: int) -> None:
    lines = Lines(size)
    lines.feed(b"x" * (size - 1) + b"\n")
    assert taken(lines) == [b"x" * (size - 1)] and not lines.too_long
    lines.feed(b"x" * size + b"\n")
    assert taken(lines) == [] and lines.too_long


@pytest.mark.parametrize("pieces", [1, SIZE])
def test_a_line_that_cannot_end_in_time_is_too_long_before_its_lf(pieces: int) -> None:
    lines = Lines(SIZE)
    for number in range(pieces):
        assert not lines.too_long
        lines.feed(b"x" * SIZE if pieces == 1 else b"x")
        assert lines.too_long == (number == pieces - 1)


@pytest.mark.parametrize("before", [0, 1, BATCH - 1, BATCH, BATCH + 1, 3 * BATCH])
@pytest.mark.parametrize("end", [b"\n", b"", b"\nmore\n"])
def test_the_lines_before_one_too_long_come_first_and_nothing_after_it(
    before: int, end: bytes
) -> None:
    lines = Lines(SIZE)
    lines.feed(b"ab")
    lines.feed(b"\n" + b"x\n" * before + b"y" * SIZE + end)
    assert taken(lines) == [b"ab", *[b"x"] * before]
    assert lines.too_long
    lines.clear()
    assert not lines.too_long and not lines.waiting and lines.octets == (0, 0)


def test_of_what_follows_a_line_too_long_nothing_is_kept() -> None:
    lines = Lines(50)
    cut = lines.feed(b"before\n" + b"x" * 50 + b"\n" + b"after\n" * 2 * BATCH + b"part")
    assert list(cut or ()) == [b"before"] and lines.too_long
    assert list(lines.next()) == [] and not lines.waiting
    assert lines.octets == (0, 0) and lines.taken == 1


def test_clearing_forgets_what_was_not_taken() -> None:
    lines = Lines(SIZE)
    lines.feed(b"a\n" * 100 + b"b")
    taken(lines, 10)
    handed_over = lines.next()
    lines.clear()
    assert (
        list(handed_over) == []
        and lines.taken == 10
        and not lines.waiting
        and lines.octets == (0, 0)
    )
    lines.feed(b"c\n")
    assert taken(lines) == [b"c"]


def test_the_work_does_not_grow_with_the_number_of_pieces() -> None:
    """Counted in octets that are searched: each one once, an incomplete line never again."""
    searched = 0

    class Octets(bytes):
        def __contains__(self, what: object) -> bool:
            nonlocal searched
            searched += len(self)
            return bytes.__contains__(self, what)  # type: ignore[arg-type]

    lines = Lines(100_000)
    for _ in range(5000):
        lines.feed(Octets(b"x"))
    assert searched <= 5000
