"""The papers' losses as pure functions of already gathered tensors.

No state, no communication, no device calls: each works alone in anybody's loop. All of them
compute in float32 or better, whatever autocast says and whatever half precision they are given,
and none makes a B x C x D tensor.

Focal loss (Lin et al. 2017, arXiv:1708.02002), class-balanced weights (Cui et al. 2019,
arXiv:1901.05555), LDAM (Cao et al. 2019, arXiv:1906.07413), mixup (Zhang et al. 2018,
arXiv:1710.09412), logit adjustment (Menon et al. 2021, arXiv:2007.07314), supervised contrast
(Khosla et al. 2020, arXiv:2004.11362), KCL (Kang et al. 2021, OpenReview OqtLIabPTit), BCL (Zhu
et al. 2022, arXiv:2207.09052), ProCo (Du et al. 2024, arXiv:2403.06726), PaCo (Cui et al. 2021,
arXiv:2107.12028), GPaCo (Cui et al. 2023, arXiv:2209.12400).
"""

from ltlib.losses.classification import (
    class_balanced_weights,
    focal_loss,
    ldam_loss,
    ldam_margins,
    logit_adjusted_cross_entropy,
    mixup_cross_entropy,
    weighted_cross_entropy,
)
from ltlib.losses.contrast import (
    balanced_contrastive_loss,
    draw_positives,
    k_positive_contrastive_loss,
    probabilistic_contrastive_logits,
    supervised_contrastive_loss,
)
from ltlib.losses.parametric import parametric_contrastive_loss

__all__ = [
    "balanced_contrastive_loss",
    "class_balanced_weights",
    "draw_positives",
    "focal_loss",
    "k_positive_contrastive_loss",
    "ldam_loss",
    "ldam_margins",
    "logit_adjusted_cross_entropy",
    "mixup_cross_entropy",
    "parametric_contrastive_loss",
    "probabilistic_contrastive_logits",
    "supervised_contrastive_loss",
    "weighted_cross_entropy",
]
