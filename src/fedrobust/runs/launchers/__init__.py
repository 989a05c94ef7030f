"""The places where the cells of a sweep are played: processes here, a Ray cluster, SLURM."""
