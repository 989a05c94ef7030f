"""The first sentence of a sweep's page says what happened, and no more than the seeds show."""

from made_sweep import CROSSED, Audits, made

from fedrobust.report.sweep.headline import headline


def plain(text: str) -> str:
    return text.replace("\u202f", " ")


def test_defences_are_judged_by_their_worst_attack() -> None:
    assert plain(headline(made(CROSSED))) == (
        "Under its worst attack, rule krum keeps the most robust accuracy (45.5 %, flip) and "
        "rule mean the least (11.0 %, alie); without an attack, robust accuracy is 48.5 to 55.5 %."
    )


def test_an_attack_that_not_all_met_judges_nobody() -> None:
    """Krum met no alie: mean, which did, is not the worse for it, and the sentence says so."""
    robust = {place: values for place, values in CROSSED.items() if place != ("krum", "alie")}
    robust |= {("mean", "zero"): [0.52, 0.53], ("krum", "zero"): [0.40, 0.41]}
    found = plain(headline(made(robust)))
    assert found.startswith(
        "Under its worst attack of the 2 that all met, rule mean keeps the most robust accuracy "
        "(50.5 %, flip) and rule krum the least (40.5 %, zero)"
    )


def test_overlapping_seeds_are_no_difference() -> None:
    robust = {**CROSSED, ("mean", "alie"): [0.10, 0.46]}
    assert plain(headline(made(robust))) == (
        "Under its worst attack, no rule is clearly more robust than another: robust accuracy is "
        "28.0 to 45.5 %; without an attack, robust accuracy is 48.5 to 55.5 %."
    )


def test_with_one_seed_the_test_examples_say_what_chance_explains() -> None:
    """Of 1,000 examples, 50 % have a 95 % interval of ± 3.1 points."""
    near = {("a", "flip"): [0.50], ("b", "flip"): [0.52]}
    assert "no rule is clearly more robust" in headline(made(near))
    far = {("a", "flip"): [0.30], ("b", "flip"): [0.51], ("c", "flip"): [0.52]}
    assert plain(headline(made(far))) == (
        "Under flip, rule c keeps the most robust accuracy (52.0 %), with 1 other within chance of "
        "it, and rule a the least (30.0 %)."
    )


def test_one_defence_is_told_by_the_most_harmful_attack() -> None:
    robust = {place: values for place, values in CROSSED.items() if place[0] == "mean"}
    assert plain(headline(made(robust))) == (
        "The most harmful attack, alie, leaves 11.0 % robust accuracy of 55.5 % without an attack."
    )
    calm = {("mean", "none"): [0.55, 0.56], ("mean", "flip"): [0.54, 0.56]}
    assert headline(made(calm)).startswith("No attack clearly lowers the robust accuracy")


def test_any_axes_will_do() -> None:
    rates = {("0.1", "4"): [0.8], ("0.1", "8"): [0.6], ("0.2", "4"): [0.3]}
    assert plain(headline(made(rates, ("rate", "steps")))) == (
        "Robust accuracy is highest for rate 0.1, steps 4 (80.0 %) and lowest for rate 0.2, "
        "steps 4 (30.0 %)."
    )
    seeds = made({(): [0.5, 0.6, 0.7]}, ())
    assert plain(headline(seeds)) == "Robust accuracy is 60.0 % over 3 seeds (50.0 to 70.0 %)."
    same = {("0.1",): [0.1], ("0.2",): [0.1]}
    assert plain(headline(made(same, ("rate",)))) == "Robust accuracy is 10.0 % at every place."


def test_an_unfinished_sweep_says_so() -> None:
    found = headline(made(CROSSED, missing=("mean-zero-0", "mean-zero-1")))
    assert found.startswith("So far, with 12 of 14 runs finished: under its worst attack, ")


AUDITED: Audits = {
    ("mean", "none"): [("genuine", 0.50), ("genuine", 0.51)],
    ("mean", "flip"): [("genuine", 0.46), ("genuine", 0.47)],
    ("mean", "alie"): [("genuine", 0.40), ("genuine", 0.41)],
    ("krum", "none"): [("genuine", 0.44), ("genuine", 0.45)],
    ("krum", "flip"): [("masked", 0.02), ("genuine", 0.40)],
    ("krum", "alie"): [("masked", 0.01), ("masked", 0.03)],
}


def test_the_audit_counts_and_not_plain_pgd_where_all_have_one() -> None:
    """Under plain PGD krum would lead by far: 45.5 % against 11 %."""
    found = plain(headline(made(CROSSED, audits=AUDITED)))
    assert found == (
        "Under its worst attack, rule mean keeps the most true robust accuracy (40.5 %, alie) and "
        "rule krum the least (2.0 %, alie); without an attack, true robust accuracy is 44.5 to "
        "50.5 %. Plain PGD would put rule krum first, with 45.5 %; the audit leaves it 21.0 %."
    )
    some = {place: found for place, found in AUDITED.items() if place != ("mean", "none")}
    assert plain(headline(made(CROSSED, audits=some))).startswith(
        "Under its worst attack, rule krum keeps the most robust accuracy (45.5 %, flip)"
    )


def test_a_masked_best_place_is_a_warning() -> None:
    far = {("a",): [0.9, 0.92], ("b",): [0.3, 0.31]}
    audits: Audits = {("a",): [("masked", 0.5), ("genuine", 0.7)], ("b",): [("genuine", 0.2)] * 2}
    assert plain(headline(made(far, ("rule",), audits=audits))) == (
        "True robust accuracy is highest for rule a (60.0 %) and lowest for rule b (20.0 %). But "
        "the audit calls rule a masked in 1 of 2 runs: plain PGD leaves 90.0 % standing there, and "
        "even 50.0 % is an upper bound."
    )
    some: Audits = {("a",): [("masked", 0.5), ("masked", 0.7)]}
    assert plain(headline(made(far, ("rule",), audits=some))).endswith(
        "lowest for rule b (30.5 %). But the audit calls rule a masked: of 91.0 % under plain PGD, "
        "60.0 % withstand its attacks."
    )
    fine = audits | {("a",): [("inconclusive", 0.5), ("genuine", 0.7)]}
    assert "But" not in headline(made(far, ("rule",), audits=fine))


def test_with_one_seed_the_audited_examples_say_what_chance_explains() -> None:
    """Of the 100 audited examples, 30 and 45 may be chance; of 1,000 test examples they are not."""
    scores = {("a",): [0.30], ("b",): [0.45]}
    assert "highest for rule b" in headline(made(scores, ("rule",)))
    audits = {("a",): [("genuine", 0.30)], ("b",): [("genuine", 0.45)]}
    assert "No place is clearly more robust" in headline(made(scores, ("rule",), audits=audits))


def test_what_is_alike_the_named_place_is_counted() -> None:
    near = {("mean", "none"): [0.9], ("mean", "a"): [0.50], ("mean", "b"): [0.51]}
    near |= {("mean", "c"): [0.7]}
    assert plain(headline(made(near))) == (
        "The most harmful attack, a, leaves 50.0 % robust accuracy of 90.0 % without an attack, "
        "with 1 other within chance of it."
    )
    rates = {("0.1",): [0.8], ("0.2",): [0.79], ("0.3",): [0.5], ("0.4",): [0.31], ("0.5",): [0.3]}
    assert plain(headline(made(rates, ("rate",)))) == (
        "Robust accuracy is highest for rate 0.1 (80.0 %), with 1 other within chance of it, and "
        "lowest for rate 0.5 (30.0 %), with 1 other within chance of it."
    )


def test_two_seeds_tell_equal_places_apart_no_more_often_than_one() -> None:
    """Their own range may be as narrow as chance makes it."""
    two = {("a", "flip"): [0.500, 0.501], ("b", "flip"): [0.515, 0.516]}
    assert "no rule is clearly more robust" in headline(made(two))
