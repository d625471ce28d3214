"""What the suite's algebra and execution gain over the plain way, in time and memory, here and now.

The two sides take turns, so that a busy machine slows both alike.
"""

from ltlib.benchmark.losses import benchmark_losses
from ltlib.benchmark.measuring import Report
from ltlib.benchmark.training import benchmark_training

__all__ = ["Report", "benchmark_losses", "benchmark_training"]
