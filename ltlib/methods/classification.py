"""CE and LA: a classifier on one view."""

from collections.abc import Sequence

from torch import Tensor, nn

from ltlib.config import CrossEntropyConfig, ExperimentConfig, LogitAdjustmentConfig
from ltlib.distributed import gather
from ltlib.losses import logit_adjusted_cross_entropy
from ltlib.methods.base import Method, StepOutput


class CrossEntropy(Method):
    """Plain cross entropy."""

    def __init__(self, config: ExperimentConfig, class_counts: Sequence[int] | Tensor) -> None:
        super().__init__(config, class_counts)
        assert isinstance(config.method, CrossEntropyConfig)

    def forward(self, views: list[Tensor], targets: Tensor) -> StepOutput:
        logits, targets = gather(self.predict(views[0])), gather(targets)
        loss = nn.functional.cross_entropy(logits.float(), targets)
        return StepOutput(loss, logits, {"ce": loss})


class LogitAdjustment(Method):
    """Cross entropy on logits + tau log prior; with tau = 1 also called balanced softmax."""

    def __init__(self, config: ExperimentConfig, class_counts: Sequence[int] | Tensor) -> None:
        super().__init__(config, class_counts)
        assert isinstance(config.method, LogitAdjustmentConfig)
        self.tau = config.method.tau

    def forward(self, views: list[Tensor], targets: Tensor) -> StepOutput:
        logits, targets = gather(self.predict(views[0])), gather(targets)
        loss = logit_adjusted_cross_entropy(logits, targets, self.prior, self.tau)
        return StepOutput(loss, logits, {"ce": loss})
