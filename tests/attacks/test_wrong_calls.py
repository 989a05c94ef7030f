"""Attacks called by hand with the wrong things: the message names the argument."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from crafting import OWN, VIEW, seeded

from fedrobust.attacks import LabelFlip, Mimic, SignFlip


def test_wrong_calls_are_told_by_the_argument() -> None:
    with pytest.raises(ValueError, match=r"attack sign-flip: view must be a fedrobust.View; got 3"):
        SignFlip().craft(None, 3, seeded())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"attack sign-flip: rng must be a torch.Generator"):
        SignFlip().craft(None, VIEW, 0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="sign-flip uses honest updates, but the view's own is"):
        SignFlip().craft(None, replace(VIEW, own=OWN[:0]), seeded())
    with pytest.raises(ValueError, match="classes must be a whole number from 1 on; got '10'"):
        LabelFlip().poison(torch.rand(2, 2), torch.tensor([0, 1]), "10")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="labels run from 0 to 7"):
        LabelFlip().poison(torch.rand(2, 2), torch.tensor([0, 7]), 5)
    with pytest.raises(ValueError, match="state must be what its last craft returned"):
        Mimic().craft("state", replace(VIEW, benign=OWN, benign_clients=(1, 2, 3)), seeded())  # type: ignore[arg-type]


VIEWS: dict[str, tuple[dict[str, Any], str]] = {
    "own array": ({"own": OWN.numpy()}, "the view's own must be a tensor; got a value of type nd"),
    "own row": ({"own": OWN[0]}, r"the view's own must be \[rows, d\]; got shape \[3\]"),
    "own wide": ({"own": OWN.repeat(1, 2)}, r"must be \[3, 3\], or \[0, 3\].*got \[3, 6\]"),
    "own few": ({"own": OWN[:2]}, r"must be \[3, 3\].*got \[2, 3\]"),
    "own whole": ({"own": OWN.long()}, "own must be floating point; got torch.int64"),
    "own sparse": ({"own": OWN.to_sparse()}, "own must be a dense tensor.*sparse"),
    "parameters": ({"parameters": OWN}, r"parameters must be \[d\]; got shape \[3, 3\]"),
    "benign": ({"benign": OWN[:, :2]}, r"benign rows must be \[b, 3\]; got \[3, 2\]"),
    "names": ({"benign": OWN, "benign_clients": (1,)}, "of each of the 3 benign rows; got 1 of"),
    "history": ({"history": (OWN,)}, r"history must be \[d\]"),
    "history list": ({"history": []}, "history must be a tuple"),
    "round": ({"round": 0}, "the view's round must be a whole number from 1 on; got 0"),
    "rule": ({"rule": 3}, "rule must be a function or None; got 3"),
    "model": ({"model": None}, "model must be a function; got None"),
    "rate": ({"server_lr": "1"}, "server_lr must be a number; got '1'"),
    "clients": ({"clients": 2.5}, "clients must be a whole number from 1 on; got 2.5"),
    "projection": ({"projection": 1}, "projection must have a method project"),
}


@pytest.mark.parametrize(("changes", "message"), VIEWS.values(), ids=VIEWS)
def test_a_view_that_does_not_fit_is_refused_by_its_field(changes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(VIEW, **changes)
