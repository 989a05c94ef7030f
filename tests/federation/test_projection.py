"""The nearest point of Θ, and a server that keeps to it."""

from collections.abc import Callable

import pytest
import torch

from fedrobust import run
from fedrobust.errors import ConfigError
from fedrobust.experiment import Experiment
from fedrobust.federation.projection import Ball, Box, NoProjection
from fedrobust.federation.server import Outcome, Server

V = torch.tensor([3.0, -4.0, 0.0, 12.0])


def test_each_set_gives_its_nearest_point() -> None:
    assert torch.equal(NoProjection().project(V), V)
    torch.testing.assert_close(Ball(6.5).project(V), V / 2)
    assert torch.equal(Ball(13.0).project(V), V)
    assert torch.equal(Box(-1.0, 5.0).project(V), torch.tensor([3.0, -1.0, 0.0, 5.0]))


def test_a_huge_vector_lands_on_the_sphere() -> None:
    assert Ball(2.0).project(torch.full((9,), 1e30)).norm() == pytest.approx(2.0)


def test_the_server_steps_then_projects_and_says_so() -> None:
    server = Server(lr=0.5, projection=Ball(1.0))
    start = torch.tensor([0.6, 0.0])
    inside, quiet, _ = server.step(start, Outcome(torch.tensor([0.0, 0.4]), None))
    torch.testing.assert_close(inside, torch.tensor([0.6, 0.2]))
    assert not quiet.projected
    after, outcome, _ = server.step(start, Outcome(torch.tensor([4.8, 0.0]), None))
    torch.testing.assert_close(after, torch.tensor([1.0, 0.0]))
    assert outcome.projected
    assert outcome.vector is not None


@pytest.mark.slow
def test_a_run_stays_in_the_ball(tiny: Callable[..., Experiment]) -> None:
    free = run(tiny())
    radius = 0.5 * free.state.parameters.norm().item()
    kept = run(tiny(server={"projection": {"name": "ball", "radius": radius}}))
    assert kept.state.parameters.norm() <= radius * (1 + 1e-6)


def test_an_empty_box_is_refused(tiny: Callable[..., Experiment]) -> None:
    with pytest.raises(ConfigError, match="low must be below high"):
        tiny(server={"projection": {"name": "box", "low": 1.0, "high": 1.0}})


def test_a_projected_point_is_not_projected_again() -> None:
    g = torch.Generator().manual_seed(0)
    for _ in range(300):
        ball = Ball(float(torch.rand((), generator=g) * 10 + 0.1))
        server = Server(projection=ball)
        at = ball.project(100 * torch.randn(28, generator=g))
        _, outcome, _ = server.step(at, Outcome(torch.zeros(28), None))
        assert not outcome.projected
