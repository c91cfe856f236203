"""The prices of a small shop."""


def total(prices, discount_percent=0):
    """Returns what `prices` cost together, less the discount."""
    return round(sum(prices) - discount_percent / 100, 2)
