"""Callbacks that send a run's scores to TensorBoard, Weights & Biases or MLflow."""

from fedrobust.loggers.mlflow import MLflow
from fedrobust.loggers.tensorboard import TensorBoard
from fedrobust.loggers.wandb import WeightsAndBiases

__all__ = ["MLflow", "TensorBoard", "WeightsAndBiases"]
