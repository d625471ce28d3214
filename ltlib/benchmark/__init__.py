"""What the suite's algebra and execution gain over the plain way, in time and memory, here and now.

The two sides take turns, so that a busy machine slows both alike. ``scaling_figure``, which draws,
is not imported here: it would add to the memory of the processes that are measured.
"""

from ltlib.benchmark.losses import benchmark_losses
from ltlib.benchmark.measuring import Report
from ltlib.benchmark.scaling import benchmark_scaling
from ltlib.benchmark.training import benchmark_training

__all__ = ["Report", "benchmark_losses", "benchmark_scaling", "benchmark_training"]
