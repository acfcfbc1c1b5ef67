"""What lies near what among embeddings: nearest neighbours, near duplicates, outliers.

Embeddings are float32 [N, d] of length 1, so the cosine of two is their inner product.
"""

from typing import Final

import numpy as np
import pandas as pd

_EXACT: Final = 20_000  # vectors up to which all pairs are compared; above, an index finds nearly all neighbours
_BLOCK: Final = 2**24  # cosines that are in memory at a time
_SEARCHED: Final = 64  # candidates that the index keeps in a search: 0.999 of the true neighbours at 100,000 vectors
NEIGHBOURS: Final = 10  # of an image that tell how densely images lie there
_FEWEST: Final = 5  # images of a class in which one can be outside
_OUTLIER: Final = 3.0
_ALIKE: Final = 0.45
_MOST_APART: Final = 0.25
_SAME: Final = 1e-4
_VARIANCE: Final = 0.999
_MAP_DIMENSIONS: Final = 50


def find_nearest(vectors: np.ndarray, queries: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Finds the vectors with the largest cosine to each query.

    Up to 20,000 vectors are all compared. More go into an index (HNSW, arXiv:1603.09320, by usearch), in half precision.

    Args:
      vectors: float32 [N, d], of length 1.
      queries: float32 [Q, d], likewise.
      number: how many, at most N.

    Returns:
      Positions in `vectors`, int64 [Q, number], and cosines, float32 [Q, number], the largest first.
    """
    number = min(number, len(vectors))
    if len(vectors) <= _EXACT:
        parts = [
            _largest(queries[start : start + _BLOCK // len(vectors)] @ vectors.T, number)
            for start in range(0, len(queries), _BLOCK // len(vectors))
        ]
        positions, cosines = (np.concatenate(part) for part in zip(*parts, strict=True))
        return positions, cosines
    from usearch.index import Index

    index = Index(ndim=vectors.shape[1], metric="cos", dtype="f16", expansion_search=max(_SEARCHED, number))
    index.add(np.arange(len(vectors)), vectors)
    matches = index.search(queries, number)
    positions = matches.keys.astype(np.int64).reshape(len(queries), number)
    return positions, np.einsum("qd,qnd->qn", queries, vectors[positions])


def _largest(cosines: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    some = np.argpartition(-cosines, number - 1, axis=1)[:, :number]
    values = np.take_along_axis(cosines, some, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(some, order, axis=1), np.take_along_axis(values, order, axis=1)


def find_outliers(vectors: np.ndarray, labels: pd.Series) -> pd.DataFrame:
    """Finds images that lie far from those of their class.

    An image's distance is the mean of 1 - cosine to its ten nearest of the class, or to all others if the class has fewer.

    Args:
      vectors: float32 [N, d], of length 1.
      labels: the class of each.

    Returns:
      A row for each image whose distance is more than `_OUTLIER` times the median of its class, the farthest first: `image`,
      its position; `label`; `distance`; and `ratio`, the distance divided by that median.
    """
    parts = []
    for label, members in labels.groupby(labels, sort=True).indices.items():
        if len(members) > _FEWEST:
            _, cosines = find_nearest(vectors[members], vectors[members], NEIGHBOURS + 1)
            distances = 1 - cosines[:, 1:].mean(axis=1)
            ratios = distances / max(float(np.median(distances)), 1e-6)
            parts.append(pd.DataFrame({"image": members, "label": label, "distance": distances, "ratio": ratios}))
    if not parts:
        return pd.DataFrame(columns=["image", "label", "distance", "ratio"])
    found = pd.concat(parts, ignore_index=True)
    return found[found["ratio"] > _OUTLIER].sort_values("ratio", ascending=False, kind="stable").reset_index(drop=True)


def find_near_duplicates(vectors: np.ndarray) -> pd.DataFrame:
    """Finds pairs that lie far nearer to each other than each does to other images.

    Two images are a pair if their distance, 1 - cosine, is less than `_ALIKE` times the distance of either to its tenth
    neighbour, and at most `_MOST_APART`: so it means the same where images lie densely and where they do not. Images that are
    the same to the model are pairs, too, each with at most ten others. Distances are between whitened vectors
    (PCA, components with 99.9 % of the variance, at most one for four images): what tells classes apart, and is much the same
    in all images of a class, then counts no more than what tells these from each other.

    Args:
      vectors: float32 [N, d], of length 1.

    Returns:
      A row for each pair, the nearest first: `a` and `b`, positions, a < b; and `cosine`, of the whitened vectors.
    """
    whitened = _whiten(vectors)
    positions, cosines = find_nearest(whitened, whitened, NEIGHBOURS + 1)
    distances = np.maximum(1 - cosines, 0)
    reach = distances[:, -1]
    one = np.repeat(np.arange(len(vectors)), positions.shape[1])
    two, distance = positions.ravel(), distances.ravel()
    near = (distance < _ALIKE * np.minimum(reach[one], reach[two])) & (distance <= _MOST_APART)
    alike = (one != two) & (near | (distance < _SAME))
    pairs = pd.DataFrame({"a": np.minimum(one, two), "b": np.maximum(one, two), "cosine": 1 - distance})[alike]
    return pairs.drop_duplicates(["a", "b"]).sort_values("cosine", ascending=False, kind="stable").reset_index(drop=True)


def _whiten(vectors: np.ndarray) -> np.ndarray:
    from sklearn.decomposition import PCA

    found = PCA(_VARIANCE, whiten=True, svd_solver="covariance_eigh").fit_transform(vectors)[:, : max(1, len(vectors) // 4)]
    return (found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def place_on_map(vectors: np.ndarray, seed: int = 0) -> np.ndarray:
    """Places on a plane, float32 [N, 2], at which near vectors lie near each other (t-SNE, van der Maaten and Hinton 2008)."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    dimensions = min(_MAP_DIMENSIONS, *vectors.shape)
    reduced = PCA(dimensions, random_state=seed).fit_transform(vectors)
    perplexity = min(30.0, max(1.0, (len(vectors) - 1) / 3))
    return TSNE(perplexity=perplexity, init="pca" if dimensions > 1 else "random", random_state=seed).fit_transform(reduced)
