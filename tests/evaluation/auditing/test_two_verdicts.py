"""Of two audits that disagree, the one that has seen more is to be believed."""

from fedrobust.evaluation.auditing.two_verdicts import Seen, disagreement


def seen(verdict: str, examples: int, budget: str, attacks: int | None = None) -> Seen:
    return Seen(f"audit {verdict}", verdict, 0.5, examples, budget, attacks)


def test_the_same_verdict_needs_no_words() -> None:
    assert disagreement(seen("genuine", 10, "quick"), seen("genuine", 900, "full")) == ""


def test_more_examples_or_a_larger_budget_decide_and_are_named() -> None:
    small, large = seen("genuine", 300, "quick", 9), seen("masked", 1000, "standard", 14)
    for told in (disagreement(small, large), disagreement(large, small)):
        assert told.endswith("Believe audit masked: it has more examples and a larger budget.")
        assert "genuine, 50.0 % robust (300 test examples, budget quick, 9 attacks)" in told
        assert "masked, 50.0 % robust (1,000 test examples, budget standard, 14 attacks)" in told
    wider = seen("masked", 300, "full")
    assert disagreement(small, wider).endswith("Believe audit masked: it has a larger budget.")
    longer = seen("masked", 301, "quick", 9)
    assert disagreement(small, longer).endswith("Believe audit masked: it has more examples.")
    further = seen("masked", 300, "quick", 11)  # with transfer from other networks
    assert disagreement(further, small).endswith("Believe audit masked: it has more attacks.")
    unknown = seen("masked", 300, "quick")  # a record of an earlier version
    assert "attacks" not in disagreement(unknown, seen("genuine", 200, "quick"))


def test_where_each_has_seen_more_in_another_way_a_third_audit_decides() -> None:
    told = disagreement(seen("genuine", 300, "standard"), seen("masked", 1000, "quick"))
    assert told.endswith(
        "Believe neither yet: the first has a larger budget, the second has more examples. Audit "
        "with --budget standard --samples 1000."
    )
    told = disagreement(seen("genuine", 300, "quick", 9), seen("masked", 300, "quick", 9))
    assert told.endswith("they have seen as much. Audit with more --samples.")
