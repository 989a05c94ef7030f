"""How a run is computed: execution plan, randomness, models, memory and compiled loops."""
