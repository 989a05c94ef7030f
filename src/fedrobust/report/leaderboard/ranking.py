"""Rank the rules of a leaderboard by their worst attack, as the audit counts it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count, takewhile
from typing import get_args

from fedrobust.evaluation.intervals import bounds
from fedrobust.records.schema.leaderboard import Knowledge, ResultRecord, RuleOf

LEVELS: tuple[Knowledge, ...] = get_args(Knowledge)
"""What attackers may know at most, from the least on."""
_FIRST_SEED = 0


@dataclass(frozen=True)
class Under:
    """One rule under one attack: its results, one for each seed that counts.

    The scores are those of the first seed, which every rule with a rank has. Were they a median,
    whoever has played more seeds could submit as many of them as help.
    """

    attack: str
    results: tuple[ResultRecord, ...]

    @cached_property
    def first(self) -> ResultRecord:
        """The result of the first seed."""
        return min(self.results, key=lambda result: result.seed)

    @property
    def robust(self) -> float:
        """The true robust accuracy: the audit's."""
        return self.first.audit.robust

    @property
    def claimed(self) -> float:
        """The robust accuracy under plain PGD on the same examples."""
        return self.first.audit.claimed

    @property
    def clean(self) -> float:
        """The accuracy on clean examples."""
        return self.first.clean

    @property
    def ends(self) -> tuple[float, float]:
        """The range of ``robust``: over the seeds, and at least one seed's 95 % interval.

        Two or three seeds alone would tell equal rules apart far too often.
        """
        low, high = bounds(self.robust, min(r.audit.examples for r in self.results))
        found = [r.audit.robust for r in self.results]
        return min(low, *found), max(high, *found)


@dataclass(frozen=True)
class Standing:
    """One rule under all attacks of a level.

    ``seeds`` are those that it was played from under every attack, without a gap from seed 0 on.
    The further ones only widen the ranges. ``missing`` names the attacks that lack seed 0; a rule
    that misses one has no rank.
    """

    rule: RuleOf
    under: tuple[Under, ...]
    seeds: tuple[int, ...]
    missing: tuple[str, ...]
    rank: int = 0
    rank_by_pgd: int = 0

    @cached_property
    def worst(self) -> Under:
        """The attack that leaves the least true robust accuracy."""
        return min(self.under, key=lambda under: under.robust)

    @cached_property
    def claimed(self) -> Under:
        """The attack that leaves the least robust accuracy in the eyes of plain PGD."""
        return min(self.under, key=lambda under: under.claimed)


def standings(
    results: Sequence[ResultRecord], attacks: Mapping[str, Knowledge], most: Knowledge
) -> tuple[list[Standing], list[Standing]]:
    """Return the ranked rules, the best first, and the incomplete ones.

    Only the attacks count that are granted at most ``most``. Equal rules have the same rank. A rule
    without a result under these attacks is left out.
    """
    counted = [a for a, knows in attacks.items() if LEVELS.index(knows) <= LEVELS.index(most)]
    by_rule: dict[str, list[ResultRecord]] = {}
    for result in results:
        by_rule.setdefault(result.rule.label, []).append(result)
    found = [_standing(mine, counted) for mine in by_rule.values() if counted]
    complete = [each for each in found if not each.missing]
    true = sorted(each.worst.robust for each in complete)[::-1]
    said = sorted(each.claimed.claimed for each in complete)[::-1]
    ranked = [
        Standing(
            each.rule,
            each.under,
            each.seeds,
            (),
            1 + true.index(each.worst.robust),
            1 + said.index(each.claimed.claimed),
        )
        for each in complete
    ]
    ranked.sort(key=lambda each: (each.rank, -each.worst.clean, each.rule.label))
    apart = [each for each in found if each.missing and each.under]
    return ranked, sorted(apart, key=lambda each: (len(each.missing), each.rule.label))


def _standing(results: Sequence[ResultRecord], attacks: Sequence[str]) -> Standing:
    seeds = {a: {r.seed for r in results if r.attack.label == a} for a in attacks}
    missing = tuple(a for a, played in seeds.items() if _FIRST_SEED not in played)
    both = set.intersection(*seeds.values()) if not missing else set[int]()
    shared = set(takewhile(both.__contains__, count(_FIRST_SEED)))
    under = []
    for attack in attacks:
        mine = [r for r in results if r.attack.label == attack]
        counted = tuple(r for r in mine if missing or r.seed in shared)
        if counted:
            under.append(Under(attack, counted))
    return Standing(results[0].rule, tuple(under), tuple(sorted(shared)), missing)
