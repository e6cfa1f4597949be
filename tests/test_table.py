"""The mapping that never does much at once."""

from random import Random

from kv.protocol.table import LOAD, Table


def test_it_is_a_dict() -> None:
    rng, table, model = Random(1), Table(), dict[str, str]()
    for size in (10, 3000, 0, 500, 5):
        while abs(len(model) - size) > 1:
            key = str(rng.randrange(5000))
            if rng.random() < (0.9 if len(model) < size else 0.1):
                table[key] = model[key] = str(rng.random())
            else:
                key = rng.choice([key, *list(model)[:1]])
                assert table.pop(key, None) == model.pop(key, None)
            assert (key in table) == (key in model)
            assert table.get(key) == model.get(key) and table.get(key, "") == model.get(key, "")
        assert len(table) == len(model)
        assert table == model


def test_whatever_the_size_a_bucket_is_small() -> None:
    """And so is a step: it never touches more than two."""
    table = Table()
    for number in range(20_000):
        table[str(number)] = ""
    assert table.buckets == len(table) / LOAD
    assert max(map(len, table._buckets)) < 8 * LOAD
    for number in range(19_000):
        del table[str(number)]
    assert table.buckets == 1 + len(table) / (LOAD / 4)
    assert max(map(len, table._buckets)) < 8 * LOAD


def test_a_copied_bucket_has_the_same_texts_and_none_of_the_same_objects() -> None:
    table = Table()
    table["some key"] = "some value"
    before = [id(text) for item in table.items() for text in item]
    kept = dict(table)  # so that no address is used again
    table.copy_bucket(0)
    assert table == kept
    assert not set(before) & {id(text) for item in table.items() for text in item}
