"""Layer-wise decay of the learning rate: the nearer to the image a weight of the backbone is, the slower it learns."""

from collections.abc import Iterator

import keras


def rate_factors(backbone: keras.Model, variables: list[keras.Variable], layer_decay: float) -> list[float]:
    """layer_decay^distance for each variable, as in BEiT (arXiv:2106.08254, appendix) and timm.

    Pyramid and heads have the distance 0, the backbone's last stage 1, the stage before 2, and so on. The stage of a layer is
    that of the largest map among its own and those after it, so that the path of a squeeze-and-excitation, whose maps have one
    cell, belongs to the stage that it weighs. All layers of one map size are a stage, as in timm's coarse groups. So a plain
    vision transformer is one stage.

    Args:
      backbone: of known input size, with all layers that `variables` may be of.
      variables: of the whole network, trainable.
      layer_decay: of the rate from a stage to the one before, 0..1.
    """
    largest = 1
    sides: dict[str, int] = {}  # of the map at each variable's layer
    for layer in reversed([*_layers(backbone)]):
        if layer.weights:  # and no padding, after which a map is larger than its stage's
            shapes = [output.shape for output in keras.tree.flatten(layer.output) if len(output.shape) == 4]
            largest = max([largest, *(max(shape[1:3]) for shape in shapes)])
        sides |= {variable.path: largest for variable in layer.trainable_variables}
    distances = {side: number for number, side in enumerate(sorted(set(sides.values())), start=1)}
    return [layer_decay ** distances[sides[v.path]] if v.path in sides else 1.0 for v in variables]


def _layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """A network's layers, from the image on, with those of the networks in it instead of these."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _layers(layer)
        else:
            yield layer
