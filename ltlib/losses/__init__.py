"""The papers' losses as pure functions of already gathered tensors.

No state, no communication, no device calls: each works alone in anybody's loop. All of them
compute in float32 or better, whatever autocast says and whatever half precision they are given,
and none makes a B x C x D tensor.

Logit adjustment (Menon et al. 2021, arXiv:2007.07314), supervised contrast (Khosla et al. 2020,
arXiv:2004.11362), BCL (Zhu et al. 2022, arXiv:2207.09052), ProCo (Du et al. 2024,
arXiv:2403.06726), PaCo (Cui et al. 2021, arXiv:2107.12028), GPaCo (Cui et al. 2023,
arXiv:2209.12400).
"""

from ltlib.losses.classification import logit_adjusted_cross_entropy
from ltlib.losses.contrast import (
    balanced_contrastive_loss,
    probabilistic_contrastive_logits,
    supervised_contrastive_loss,
)
from ltlib.losses.parametric import parametric_contrastive_loss

__all__ = [
    "balanced_contrastive_loss",
    "logit_adjusted_cross_entropy",
    "parametric_contrastive_loss",
    "probabilistic_contrastive_logits",
    "supervised_contrastive_loss",
]
