from prices import total


def test_nothing():
    assert total([]) == 0


def test_sum():
    assert total([1.5, 2, 3]) == 6.5


def test_discount():
    assert total([10, 20], discount_percent=10) == 27
