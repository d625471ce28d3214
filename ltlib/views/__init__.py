"""The papers' augmentations by name, and ``MultiView``: one image to several views.

A view is a torchvision PIL pipeline from an RGB image to a normalised tensor (3, H, W). All of
them draw from torch's generator; ``MultiView`` seeds it so that a view is a pure function of
(seed, epoch, sample index, view index).

Sources: ``ProCo_cifar/main.py`` and ``ProCo_cifar/autoaug.py`` of LeapLabTHU/ProCo,
``LT/paco_cifar.py`` and ``LT/moco/loader.py`` of dvlab-research/Parametric-Contrastive-Learning;
AutoAugment is Cubuk et al. 2019 (arXiv:1805.09501), Cutout DeVries and Taylor 2017
(arXiv:1708.04552).
"""

from ltlib.views.batched import BATCHED_VIEWS, BatchedViews
from ltlib.views.multiview import MultiView, derive_seed, preserved_rng
from ltlib.views.operations import CifarAutoAugment, Cutout, GaussianBlur
from ltlib.views.pipelines import VIEWS, build_view
from ltlib.views.pixels import PixelFormat

__all__ = [
    "BATCHED_VIEWS",
    "VIEWS",
    "BatchedViews",
    "CifarAutoAugment",
    "Cutout",
    "GaussianBlur",
    "MultiView",
    "PixelFormat",
    "build_view",
    "derive_seed",
    "preserved_rng",
]
