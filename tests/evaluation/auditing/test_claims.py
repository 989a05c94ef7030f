"""A claim that is too high, or rests on a weak attack, is told apart from masking."""

import pytest
from planted import EPS, Times, digits, natural, robust, sign, trained

from fedrobust.evaluation import audit
from fedrobust.perturb import Pgd

pytestmark = pytest.mark.slow


def test_a_weak_claim_is_no_masking() -> None:
    """One step of FGSM claims less than it should, but hides nothing."""
    _, _, x, y = digits()
    weak = Pgd(eps=EPS, step_size=EPS, steps=1, random_start=False)
    found = audit(robust(), x, y, eps=EPS, claim=weak)
    assert found.verdict == "genuine", str(found)


@pytest.mark.parametrize("steps", [1, 40])
def test_a_claim_that_hardly_moves_is_no_masking_and_does_not_hold(steps: int) -> None:
    """All that the battery finds, plain PGD that arrives finds too."""
    _, _, x, y = digits()
    idle = Pgd(eps=EPS, step_size=1e-4, steps=steps, random_start=False)
    found = audit(natural(), x, y, eps=EPS, claim=idle)
    assert found.claimed > found.robust + 0.3
    assert found.verdict == "inconclusive", str(found)
    assert found.reason.startswith("the claim does not hold")
    assert "its attack is too weak" in found.reason
    assert [s.name for s in found.signs if s.beyond is not False] == ["the claim is overstated"]


def test_a_model_that_claims_nothing_has_nothing_to_refute() -> None:
    """Said of a claim of 0 %: "passed", and "The claim is less than a third too high"."""
    _, _, x, y = digits()
    found = audit(natural(), x, y, eps=0.5)
    assert (found.claimed, found.robust) == (0.0, 0.0)
    assert found.verdict == "genuine"
    assert found.reason == (
        "the model claims no robustness, so there was nothing to refute: plain PGD breaks every "
        "example that it is right on"
    )
    lines = str(found).splitlines()
    size = next(i for i, line in enumerate(lines) if "All attacks on the examples" in line)
    assert lines[size].startswith("  no claim  All attacks")
    assert sum(line.startswith("  passed ") for line in lines) == 2, "gradient, and one answer"


def test_a_claim_outside_the_box_is_refused() -> None:
    _, _, x, y = digits()
    claim = Pgd(eps=EPS, step_size=EPS / 30, steps=40, box=False)
    with pytest.raises(ValueError, match="an audit needs box: true"):
        audit(natural(), x, y, eps=EPS, claim=claim)


def test_small_logits_of_a_model_in_its_youth_are_no_masking() -> None:
    """Louder logits are a better guide there, though the gradient hides nothing."""
    _, _, x, y = digits()
    for steps in (10, 20):
        found = audit(trained(1, steps), x, y, eps=EPS)
        assert found.verdict != "masked", f"{steps}: {found}"
        assert sign(found, "rescaled") is False, steps
    quiet = audit(Times(robust(), 0.01), x, y, eps=EPS)
    assert quiet.verdict != "masked"
    assert "PGD, louder logits" in [taken.name for taken in quiet.taken]
