"""The experiment, which the server and the clients share."""

from fedrobust import Client, Evaluation, Experiment
from fedrobust.aggregators import TrimmedMean
from fedrobust.data import Digits, Iid
from fedrobust.models import DigitsCnn
from fedrobust.objectives import Adversarial
from fedrobust.perturb import Pgd

CLIENTS = 3


def experiment(rounds: int, seed: int) -> Experiment:
    """Return the experiment. The rule tolerates one malicious client of three.

    Everyone has the public digits here: each client trains on its own third, and the server
    evaluates on what it holds out. Where clients have data of their own, the partition is
    ``Remote(clients=3)``, and ``data`` are the server's own.
    """
    return Experiment(
        name="digits-federation",
        seed=seed,
        rounds=rounds,
        data=Digits(validation=300),
        partition=Iid(clients=CLIENTS),
        model=DigitsCnn(),
        objective=Adversarial(ratio=0.5, attack=Pgd(eps=0.15, step_size=0.03, steps=5)),
        client=Client(batch_size=32, epochs=4, optimizer={"name": "adam", "lr": 0.003}),
        aggregator=TrimmedMean(f=1),
        evaluation=Evaluation(
            attack=Pgd(eps=0.15, step_size=0.03, steps=10), every=1, samples=None
        ),
        execution={"batch": 16},
    )
