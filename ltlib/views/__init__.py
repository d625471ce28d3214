"""The papers' augmentations by name, and ``MultiView``: one image to several views.

A view is a PIL pipeline from an RGB image to a normalised tensor (3, H, W). They draw from the
global generators; ``MultiView`` seeds those so that a view is a pure function of (seed, epoch,
sample index, view index). The views of 224 pixels take an image at its native size.

Sources: ``ProCo_cifar/main.py``, ``ProCo_cifar/autoaug.py`` and ``ProCo/main.py`` of
LeapLabTHU/ProCo, ``main.py`` of FlamieZhu/Balanced-Contrastive-Learning, ``LT/paco_cifar.py``,
``LT/paco_lt.py``, ``Full-ImageNet/paco_imagenet.py`` and ``LT/moco/loader.py`` of
dvlab-research/Parametric-Contrastive-Learning; AutoAugment is Cubuk et al. 2019
(arXiv:1805.09501), RandAugment Cubuk et al. 2019 (arXiv:1909.13719), Cutout DeVries and Taylor
2017 (arXiv:1708.04552).
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
