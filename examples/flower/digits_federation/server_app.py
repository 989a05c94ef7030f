"""The server: any rule of fedrobust, in four lines."""

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from digits_federation.experiment import experiment
from fedrobust.flower import RobustStrategy

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Play the experiment, or go on with it from its last checkpoint."""
    config = context.run_config
    strategy = RobustStrategy(
        experiment(config["rounds"], config["seed"]),
        out=config["out"],
        timeout=config["timeout"],
        wait=config["wait"],
    )
    strategy.start(grid=grid)
