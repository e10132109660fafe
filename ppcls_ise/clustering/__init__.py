# SPDX-License-Identifier: Apache-2.0
"""Pseudo-labels from features: arrays in, arrays out; numpy, scipy and, if wanted, faiss."""

from ppcls_ise.clustering.dbscan import dbscan
from ppcls_ise.clustering.jaccard import jaccard_graph
from ppcls_ise.clustering.neighbors import k_nearest, search_recall
from ppcls_ise.clustering.pseudo_labels import PseudoLabels, generate_pseudo_labels

__all__ = [
    "PseudoLabels",
    "dbscan",
    "generate_pseudo_labels",
    "jaccard_graph",
    "k_nearest",
    "search_recall",
]
