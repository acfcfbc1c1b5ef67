"""Which images to label next: those that a model is unsure of, and that differ from each other."""

from typing import Final

import numpy as np

_CANDIDATES: Final = 10  # for each image to choose, as in arXiv:1901.05954, figure 2


def uncertainty(probabilities: np.ndarray, multi_label: bool) -> np.ndarray:
    """How unsure answers are, float [N], 0..1.

    It is 1 less the difference of the two largest probabilities; for multi-label data, that of the least sure class: 0 where
    its probability is 0 or 1, and 1 where it is 0.5.

    Args:
      probabilities: float [N, classes], 0..1.
      multi_label: whether an image can have any number of classes.
    """
    if multi_label:
        return 1 - np.abs(2 * probabilities - 1).min(axis=1)
    second, first = np.partition(probabilities, -2, axis=1)[:, -2:].T
    return 1 - (first - second)


def choose_next(probabilities: np.ndarray, vectors: np.ndarray, number: int, multi_label: bool, seed: int = 0) -> np.ndarray:
    """Chooses images whose labels would teach the most.

    Of the ten times as many that are least sure, k-means with the uncertainty as weight makes as many clusters as images are
    wanted, and the image nearest to each centre is taken (Zhdanov 2019, arXiv:1901.05954). So no two of them are nearly alike.

    Args:
      probabilities: of the model's answers, float [N, classes], 0..1.
      vectors: the images' embeddings, float32 [N, d].
      number: how many to choose.
      multi_label: whether an image can have any number of classes.
      seed: of the first centres.

    Returns:
      Positions, int64 [min(number, N)], the least sure first.
    """
    unsure = uncertainty(probabilities, multi_label)
    order = np.argsort(-unsure, kind="stable")
    if number >= len(order):
        return order
    from sklearn.cluster import KMeans

    candidates = order[: _CANDIDATES * number]
    clusters = KMeans(number, n_init=1, max_iter=50, random_state=seed)
    of = clusters.fit_predict(vectors[candidates], sample_weight=unsure[candidates] + 1e-6)
    distances = np.linalg.norm(vectors[candidates] - clusters.cluster_centers_[of], axis=1)
    nearest = candidates[np.lexsort((distances, of))]  # by cluster, the nearest first
    _, first = np.unique(np.sort(of), return_index=True)
    chosen = nearest[first]
    if len(chosen) < number:  # equal images make fewer clusters
        rest = candidates[~np.isin(candidates, chosen)]
        chosen = np.concatenate([chosen, rest[: number - len(chosen)]])
    return chosen[np.argsort(-unsure[chosen], kind="stable")]
