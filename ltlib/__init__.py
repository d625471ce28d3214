"""Reproducible long-tailed visual recognition: models, losses and the trainer behind the notebooks.

Shape letters, everywhere: ``B`` batch, ``V`` views, ``C`` classes, ``D`` embedding (projector
output), ``F`` backbone feature, ``K`` queue length, ``N`` data set size, ``H W`` pixels.
Embeddings of V views are ``(V*B, D)``, view-major: rows ``0..B-1`` are view 0.
Accuracy is a fraction in [0, 1]; percent appears only under a heading that says (%).
"""

import os

# Threads that wait by spinning make training five times slower beside any other busy process.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Large pages for tensors on a CPU: a step has a gigabyte of activations to walk through.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

__version__ = "0.1.0"
