"""The first sentence of a sweep's page: what happened to the robust accuracy."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import NamedTuple

from fedrobust.evaluation.intervals import bounds
from fedrobust.report.sweep.columns import COLUMNS, PLAIN, TRUE, chief, spoken
from fedrobust.report.sweep.records import Group, Spread, SweepRecords
from fedrobust.report.wording import percent

_ATTACK = "attack"
Place = tuple[str, ...]


class Score(NamedTuple):
    """The robust accuracy at one place: the audit's where ``column`` says so."""

    group: Group
    robust: Spread
    column: str = PLAIN

    @property
    def ends(self) -> tuple[float, float]:
        """The range over the seeds, and at least the 95 % interval of one seed's test examples.

        Two or three seeds alone would tell equal places apart far too often: their ranges miss each
        other by chance once in three, or once in ten times.
        """
        finals = [cell.final for cell in self.group.cells]
        examples = min((f["audit"] if self.column == TRUE else f)["examples"] for f in finals)
        low, high = bounds(self.robust.middle, examples)
        return min(low, self.robust.low), max(high, self.robust.high)


def headline(records: SweepRecords) -> str:
    """Return one sentence: which place is the most robust, which the least, by how much.

    Where every finished cell has an audit, its figure counts, and not that of plain PGD. A second
    sentence warns where an audit calls the most robust place masked. Where a sweep crosses defences
    with attacks, each defence is judged by the attack that leaves it the least. Medians over the
    seeds are compared. Two places are alike where their ranges overlap (``Score.ends``). The
    sentence counts the places that are alike the one it names.
    """
    column = chief(records)
    sentence, best = _told(records, column)
    total = len(records.cells) + len(records.missing)
    if records.missing:
        done = f"So far, with {len(records.cells)} of {total} runs finished"
        sentence = f"{done}: {sentence[:1].lower()}{sentence[1:]}"
    apparent = "" if column == PLAIN else _apparent(records, best)
    return f"{sentence}.{apparent}{_masked(records, best)}"


def _told(records: SweepRecords, column: str) -> "Told":
    """Return the sentence about a column, and the places that it says are the most robust."""
    found = [
        Score(group, spread, column)
        for group in records.groups
        if (spread := group.spread(COLUMNS[column])) is not None
    ]
    return _defences(records, found) or _attacks(records, found) or _places(records, found)


def _apparent(records: SweepRecords, best: Sequence[Score]) -> str:
    """Tell which other place plain PGD would put first; empty where it is the same."""
    _, first = _told(records, PLAIN)
    if len(best) != 1 or len(first) != 1:
        return ""
    others = [i for i, axis in enumerate(records.axes) if axis != _ATTACK]
    here, there = ([score.group.labels[i] for i in others] for score in (best[0], first[0]))
    if here == there:
        return ""
    name = _joined(records, [records.axes[i] for i in others], tuple(there))
    left = first[0].group.spread(COLUMNS[TRUE])
    assert left is not None  # every cell has an audit
    return (
        f" Plain PGD would put {name} first, with {percent(first[0].robust.middle)}; the audit "
        f"leaves it {percent(left.middle)}."
    )


def _masked(records: SweepRecords, best: Sequence[Score]) -> str:
    """Warn where an audit calls cells of the most robust place masked, or several such places."""
    cells = [cell for score in best for cell in score.group.cells]
    audits = [audit for cell in cells if (audit := cell.final.get("audit"))]
    masked = [audit for audit in audits if audit["verdict"] == "masked"]
    if not masked:
        return ""
    where = _at(records, best[0]) if len(best) == 1 else "these places"
    runs = "" if len(masked) == len(cells) else f" in {len(masked)} of {len(cells)} runs"
    claimed, robust = (median(audit[key] for audit in masked) for key in ("claimed", "robust"))
    end = (
        f"plain PGD leaves {percent(claimed)} standing there, and even {percent(robust)} is an "
        "upper bound"
    )
    if best[0].column == PLAIN:
        end = f"of {percent(claimed)} under plain PGD, {percent(robust)} withstand its attacks"
    return f" But the audit calls {where or 'the models'} masked{runs}: {end}."


Told = tuple[str, Sequence[Score]]
"""A sentence, and the places that it says are the most robust ones."""


def _defences(records: SweepRecords, found: Sequence[Score]) -> Told | None:
    """Compare defences by their worst attack; None where the sweep does not cross them."""
    if _ATTACK not in records.axes:
        return None
    attacked, calm = _by_defence(records, found)
    axis = records.axes.index(_ATTACK)
    met = [{score.group.labels[axis] for score in scores} for scores in attacked.values()]
    # A defence that met more attacks than others would look worse than it is.
    attacks = set.intersection(*met) if met else set()
    if not attacks or len(attacked) < 2:
        return None
    worst = {
        place: min(
            (score for score in scores if score.group.labels[axis] in attacks),
            key=lambda score: score.robust.middle,
        )
        for place, scores in attacked.items()
    }
    ranked = sorted(worst, key=lambda place: worst[place].robust.middle)
    low, high = (worst[place] for place in (ranked[0], ranked[-1]))
    under = f"Under {', '.join(attacks)}" if len(attacks) == 1 else "Under its worst attack"
    if any(one != attacks for one in met) and len(attacks) > 1:
        under += f" of the {len(attacks)} that all met"
    others = [name for name in records.axes if name != _ATTACK]
    what = spoken(high.column)
    calms = [calm[place] for place in worst if place in calm]

    def told(score: Score) -> str:
        name = f", {score.group.labels[axis]}" if len(attacks) > 1 else ""
        return f"{percent(score.robust.middle)}{name}"

    if _alike(low, high):
        one = others[0] if len(others) == 1 else "place"
        return (
            f"{under}, no {one} is clearly more robust than another: {what} is "
            f"{_span(low, high)}{_without(calms)}"
        ), list(worst.values())
    between = [worst[place] for place in ranked[1:-1]]
    also = _near(high, between)
    return (
        f"{under}, {_joined(records, others, ranked[-1])} keeps the most {what} "
        f"({told(high)}){also}{',' * bool(also)} and {_joined(records, others, ranked[0])} the "
        f"least ({told(low)}){_near(low, between)}{_without(calms)}"
    ), [high]


def _by_defence(
    records: SweepRecords, found: Sequence[Score]
) -> tuple[Mapping[Place, list[Score]], Mapping[Place, Score]]:
    """Return the attacked and the unattacked scores of each place on the other axes."""
    axis = records.axes.index(_ATTACK)
    attacked: dict[Place, list[Score]] = {}
    calm: dict[Place, Score] = {}
    for score in found:
        labels = score.group.labels
        place = labels[:axis] + labels[axis + 1 :]
        if all(cell.attacked for cell in score.group.cells):
            attacked.setdefault(place, []).append(score)
        elif not any(cell.attacked for cell in score.group.cells):
            calm[place] = score
    return attacked, calm


def _without(calm: Sequence[Score]) -> str:
    """Return what the same defences have without an attack, as the end of a sentence."""
    if not calm:
        return ""
    ranked = sorted(calm, key=lambda score: score.robust.middle)
    what = spoken(ranked[0].column)
    return f"; without an attack, {what} is {_span(ranked[0], ranked[-1])}"


def _span(low: Score, high: Score) -> str:
    """Return from where to where the robust accuracies of two places go."""
    ends = percent(low.robust.middle), percent(high.robust.middle)
    return ends[1] if ends[0] == ends[1] else f"{_short(low.robust.middle)} to {ends[1]}"


def _attacks(records: SweepRecords, found: Sequence[Score]) -> Told | None:
    """Name the most harmful attack on the one defence; None where there are several."""
    if _ATTACK not in records.axes:
        return None
    attacked, calm = _by_defence(records, found)
    if len(attacked) != 1:
        return None
    ((place, scores),) = attacked.items()
    worst, axis = min(scores, key=lambda score: score.robust.middle), records.axes.index(_ATTACK)
    name, left = worst.group.labels[axis], percent(worst.robust.middle)
    what = spoken(worst.column)
    also = _near(worst, [score for score in scores if score is not worst])
    if place not in calm:
        return f"The most harmful attack, {name}, leaves {left} {what}{also}", [worst]
    whole = calm[place].robust
    if _alike(worst, calm[place]):
        return (
            f"No attack clearly lowers the {what}: it is {percent(whole.middle)} without "
            f"an attack, and {left} under the most harmful one, {name}"
        ), [worst]
    return (
        f"The most harmful attack, {name}, leaves {left} {what} of "
        f"{percent(whole.middle)} without an attack{also}"
    ), [worst]


def _places(records: SweepRecords, found: Sequence[Score]) -> Told:
    """Name the most and the least robust place."""
    ranked = sorted(found, key=lambda score: score.robust.middle)
    low, high = ranked[0], ranked[-1]
    what = spoken(high.column)
    begun = f"{what[:1].upper()}{what[1:]}"
    if len(ranked) == 1:
        spread = low.robust
        over = f" over {spread.seeds} seeds ({_short(spread.low)} to {percent(spread.high)})"
        told = f"{begun} is {percent(spread.middle)}{over if spread.seeds > 1 else ''}"
        return told, [high]
    ends = percent(low.robust.middle), percent(high.robust.middle)
    if ends[0] == ends[1]:
        return f"{begun} is {ends[0]} at every place", ranked
    if _alike(low, high):
        told = f"No place is clearly more robust than another: {what} is {_span(low, high)}"
        return told, ranked
    also = _near(high, ranked[1:-1])
    return (
        f"{begun} is highest for {_at(records, high)} ({ends[1]}){also}{',' * bool(also)} and "
        f"lowest for {_at(records, low)} ({ends[0]}){_near(low, ranked[1:-1])}"
    ), [high]


def _near(score: Score, others: Sequence[Score]) -> str:
    """Tell how many of ``others`` chance may put in the place of ``score``; empty for none."""
    near = sum(_alike(other, score) for other in others)
    return f", with {near} other{'s' * (near > 1)} within chance of it" if near else ""


def _alike(one: Score, other: Score) -> bool:
    """Whether chance may explain the difference of two places: their ranges overlap."""
    return one.ends[0] <= other.ends[1] and other.ends[0] <= one.ends[1]


def _short(share: float) -> str:
    return f"{100 * share:.1f}"


def _at(records: SweepRecords, score: Score) -> str:
    return _joined(records, records.axes, score.group.labels)


def _joined(records: SweepRecords, axes: Sequence[str], labels: Place) -> str:
    """Name the labels with their axes; axes with a single label say nothing."""
    pairs = [(a, label) for a, label in zip(axes, labels, strict=True) if label]
    several = [pair for pair in pairs if len(records.labels(pair[0])) > 1]
    return ", ".join(f"{axis} {label}" for axis, label in several or pairs)
