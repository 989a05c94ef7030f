"""The worst attack decides, as the audit counts it; what is incomplete has no rank."""

from leaderboards import made

from fedrobust.evaluation.intervals import bounds
from fedrobust.records.schema.leaderboard import ResultRecord
from fedrobust.report.leaderboard.page import _board, _headline
from fedrobust.report.leaderboard.ranking import Standing, standings
from fedrobust.report.leaderboard.tables import leaderboard_tables

ATTACKS = made("x", "none", 0.5).protocol.attacks


def rule(
    name: str, *robust: float, claimed: float | None = None, seed: int = 0
) -> list[ResultRecord]:
    return [made(name, a, r, claimed, seed) for a, r in zip(ATTACKS, robust, strict=False)]


def ranked(*results: list[ResultRecord], most: str = "benign updates") -> list[Standing]:
    return standings([r for each in results for r in each], ATTACKS, most)[0]  # type: ignore[arg-type]


def test_a_better_mean_with_a_worse_worst_case_ranks_below() -> None:
    found = ranked(rule("high-mean", 0.9, 0.9, 0.3), rule("steady", 0.5, 0.5, 0.4))
    assert [(s.rank, s.rule.label, s.worst.attack) for s in found] == [
        (1, "steady", "mimic"),
        (2, "high-mean", "mimic"),
    ]


def test_true_accuracy_ranks_and_plain_pgds_rank_stands_beside_it() -> None:
    found = ranked(rule("masks", 0.6, 0.1, 0.6, claimed=0.9), rule("honest", 0.5, 0.5, 0.5))
    assert [(s.rule.label, s.rank, s.rank_by_pgd) for s in found] == [
        ("honest", 1, 2),
        ("masks", 2, 1),
    ]
    said = _headline("digits", found).replace("\u202f", " ")
    assert "honest keeps 50.0 % under its worst attack" in said
    assert "Plain PGD would have put masks first, with 90.0 %; 10.0 % are true." in said


def test_what_attackers_know_at_most_decides_which_attacks_count() -> None:
    results = rule("a", 0.8, 0.7, 0.1), rule("b", 0.6, 0.5, 0.4)
    assert [s.rule.label for s in ranked(*results)] == ["b", "a"]
    found = ranked(*results, most="own data")
    assert [(s.rule.label, s.worst.attack) for s in found] == [("a", "flip"), ("b", "flip")]


def test_the_first_sentence_says_what_attackers_know() -> None:
    found = ranked(rule("a", 0.8, 0.7, 0.1), most="own data")
    said = _headline("digits", found, "own data").replace("\u202f", " ")
    assert said == (
        "On digits, a keeps 70.0 % under its worst attack by attackers that know only their own "
        "data (flip)."
    )


def test_an_incomplete_rule_stands_apart_and_never_above() -> None:
    results = [*rule("whole", 0.2, 0.2, 0.2), *rule("part", 0.9, 0.9)]
    results += rule("late", 0.9, 0.9, 0.9, seed=3)
    found, apart = standings(results, ATTACKS, "benign updates")
    assert [s.rule.label for s in found] == ["whole"]
    assert {s.rule.label: (s.missing, s.rank) for s in apart} == {
        "part": (("mimic",), 0),
        "late": (("none", "flip", "mimic"), 0),
    }


def test_a_rule_without_results_at_a_level_is_left_out_there() -> None:
    """So that one file does not end the page of all."""
    results = [made("new", "mimic", 0.4), *rule("whole", 0.5, 0.5, 0.5)]
    found, apart = standings(results, ATTACKS, "own data")
    assert [s.rule.label for s in found] == ["whole"]
    assert apart == []
    assert [s.rule.label for s in standings(results, ATTACKS, "benign updates")[1]] == ["new"]
    assert standings(results, {"mimic": "benign updates"}, "own data") == ([], [])


def test_further_seeds_widen_the_range() -> None:
    seeds = zip((0.5, 0.1, 0.6), range(3), strict=True)
    results = [r for robust, seed in seeds for r in rule("a", 0.9, 0.8, robust, seed=seed)]
    (found,) = ranked(results)
    assert (found.worst.robust, found.worst.ends, found.seeds) == (0.5, (0.1, 0.6), (0, 1, 2))
    (found,) = ranked(rule("a", 0.9, 0.8, 0.1), [made("a", "mimic", 0.9, seed=1)])
    assert (found.worst.robust, found.seeds) == (0.1, (0,))
    assert found.worst.ends == bounds(0.1, 100), "of a single seed, the interval"


def test_more_seeds_never_make_a_range_narrower_than_one_seeds_interval() -> None:
    """Else equal rules would look apart after two seeds, and alike after one."""
    (found,) = ranked(rule("a", 0.5, 0.5, 0.5), rule("a", 0.51, 0.51, 0.51, seed=1))
    low, high = bounds(found.worst.robust, 100)
    assert found.worst.ends == (low, high)
    assert low < 0.42 < 0.59 < high


def test_no_number_of_seeds_helps() -> None:
    """Of a rule with .50, .60, .30 and .31, two seeds would have a median above the rival's .52."""
    scores = dict(enumerate((0.5, 0.6, 0.3, 0.31)))
    mine = {seed: rule("mine", 0.9, 0.9, score, seed=seed) for seed, score in scores.items()}
    for several in range(1, 5):
        results = [result for seed in range(several) for result in mine[seed]]
        found = ranked(results[::-1], rule("rival", 0.9, 0.9, 0.52))
        assert [s.rule.label for s in found] == ["rival", "mine"]
        assert found[1].worst.robust == 0.5


def test_seeds_that_help_cannot_be_chosen() -> None:
    """Two lucky seeds of many do not follow the first one."""
    lucky = [r for seed in (17, 31) for r in rule("mine", 0.9, 0.9, 0.9, seed=seed)]
    found = ranked(rule("mine", 0.4, 0.4, 0.4), lucky, rule("honest", 0.5, 0.5, 0.5))
    assert [(s.rule.label, s.rank, s.seeds) for s in found] == [
        ("honest", 1, (0,)),
        ("mine", 2, (0,)),
    ]


def test_equal_rules_share_a_rank() -> None:
    found = ranked(rule("a", 0.5, 0.5, 0.5), rule("b", 0.9, 0.5, 0.5), rule("c", 0.4, 0.4, 0.4))
    assert [s.rank for s in found] == [1, 1, 3]


def test_a_lead_that_chance_may_explain_is_told_as_one() -> None:
    first, near, far = (
        rule(name, low, low, low, seed=0) + rule(name, high, high, high, seed=1)
        for name, low, high in (("a", 0.6, 0.7), ("b", 0.5, 0.6), ("c", 0.3, 0.39))
    )
    said = _headline("digits", ranked(first, near, far))
    assert "the most of 3 rules, which may be chance: the range of b overlaps its own." in said
    assert _headline("digits", ranked(first, far)).endswith("the most of 2 rules.")


def test_a_rule_without_a_rank_is_in_no_ranking_but_among_the_scores() -> None:
    results = [*rule("whole", 0.5, 0.4, 0.3), *rule("part", 0.9, 0.8)]
    tables = {table.name: table for table in leaderboard_tables([_board("digits", results)])}
    assert list(tables) == [
        "Ranking on digits",
        "Every rule under each attack on digits",
        "Ranking on digits: other attackers at most",
        "Ranking on digits: own data at most",
    ]
    ranked_rules = {name: [row[:3] for row in table.rows] for name, table in tables.items()}
    assert ranked_rules["Ranking on digits"] == [["1", "whole", "mimic"]]
    assert ranked_rules["Ranking on digits: own data at most"] == [
        ["1", "part", "flip"],
        ["2", "whole", "flip"],
    ], "of the attacks that know no more, it was played under all"
    scores = tables["Every rule under each attack on digits"]
    assert sorted(row[0] for row in scores.rows) == ["part"] * 2 + ["whole"] * 3
    low, high = bounds(0.3, 100)
    assert scores.rows[0][:4] == [
        "whole",
        "mimic",
        "benign updates",
        f"30.0 ({100 * low:.1f} to {100 * high:.1f})",
    ]
