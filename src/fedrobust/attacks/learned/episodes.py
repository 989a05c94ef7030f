"""Which episodes a search plays, which ones choose among its last candidates, which ones judge.

An episode is known by its seed. If the same episodes chose a candidate and judged it, its value
would be too high.
"""

EPISODES = 5
"""The number of episodes in which each of the last candidates is judged."""
_FRESH, _FINAL, _START, _EVOLVED, _FAR = 1000, 2000, 5000, 10_000, 1_000_000
"""Where the episodes of each role begin, counted from the seed of a search."""


def searched(seed: int, k: int) -> int:
    """Return the seed of the k-th episode of a search; none of them chooses or judges a result."""
    return seed + k if k < _FRESH else seed + _FAR + k


def fresh_episodes(seed: int) -> range:
    """Return the seeds of episodes that no search or training has used for a choice."""
    return range(seed + _FRESH, seed + _FRESH + EPISODES)


def final_episodes(seed: int) -> range:
    """Return the seeds of the episodes that choose among the last candidates of a search."""
    return range(seed + _FINAL, seed + _FINAL + EPISODES)


def of_the_start(seed: int) -> int:
    """Return the seed of the search for the constant action at which a training starts."""
    return seed + _START


def evolved(seed: int, k: int) -> int:
    """Return the seed of the k-th episode of an evolution strategy."""
    return seed + _EVOLVED + k
