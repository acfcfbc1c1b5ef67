"""What training minimises and how: losses, metrics, the learning rate's schedule, optimizers by name."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from models.choices import LossName
from models.settings import TrainSettings

Loss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def build_loss(
    loss: LossName,
    *,
    focal_gamma: float = 0.0,
    label_smoothing: float = 0.0,
    class_weights: list[float] | None = None,
    multi_label: bool = False,
) -> Loss:
    """Makes the loss of one example from labels and logits; Keras averages it over the batch.

    - cross_entropy: -sum_k t_k log p_k
    - focal: -sum_k t_k (1 - p_k)^gamma log p_k (Lin et al. 2017, arXiv:1708.02002, equation 4), which gives less weight to
      answers that are right already; it equals the cross-entropy if gamma is 0

    with p = softmax(logits) and t = (1 - label_smoothing) y + label_smoothing / classes. If labels are soft (MixUp), an
    example's weight is the mean of the class weights, weighted with its labels.

    For multi-label models the loss is the mean over the classes of

    - cross_entropy: -(w_k t_k log p_k + (1 - t_k) log(1 - p_k))
    - focal: -(w_k t_k (1 - p_k)^gamma log p_k + (1 - t_k) p_k^gamma log(1 - p_k))

    with p = sigmoid(logits) and t = (1 - label_smoothing) y + label_smoothing / 2; the class weights w apply to the images
    that have the class.

    Args:
      loss: cross_entropy or focal.
      focal_gamma: gamma of the focal loss, >= 0.
      label_smoothing: share of each label that is spread over all classes, 0..1.
      class_weights: one weight per class; None weighs all classes equally.
      multi_label: whether each class is a yes-or-no decision of its own.

    Returns:
      A function from (labels float32 [N, classes], logits float32 [N, classes]) to float32 [N]. The rows of labels add to one,
      unless `multi_label`.
    """

    def information(log_p: tf.Tensor) -> tf.Tensor:
        """-log p, or -(1 - p)^gamma log p."""
        if loss == "cross_entropy":
            return -log_p
        # The lower bound keeps the derivative finite if p is 1 and gamma is below 1.
        return -log_p * keras.ops.maximum(-keras.ops.expm1(log_p), 1e-7) ** focal_gamma

    def of_one_class(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        targets = (1.0 - label_smoothing) * labels + label_smoothing / labels.shape[-1]
        result = keras.ops.sum(targets * information(keras.ops.log_softmax(logits)), axis=-1)
        if class_weights is not None:
            result = result * keras.ops.sum(labels * keras.ops.convert_to_tensor(class_weights, labels.dtype), axis=-1)
        return result

    def of_many(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        targets = (1.0 - label_smoothing) * labels + label_smoothing / 2
        present = targets * information(keras.ops.log_sigmoid(logits))
        if class_weights is not None:
            present = present * keras.ops.convert_to_tensor(class_weights, labels.dtype)
        absent = (1.0 - targets) * information(keras.ops.log_sigmoid(-logits))
        return keras.ops.mean(present + absent, axis=-1)

    return of_many if multi_label else of_one_class


def build_metrics(classes: int, multi_label: bool = False) -> list[keras.metrics.Metric]:
    """Metrics of labels and logits [N, classes]: `accuracy`, and `f1`, the mean of the classes' F1 scores.

    For multi-label models, the accuracy is the share of right answers among all pairs of an image and a class. A class is
    predicted if its probability is above 0.5, and present if its label is above 0.5 (MixUp makes labels soft).
    """
    if multi_label:
        accuracy = keras.metrics.MeanMetricWrapper(_right_answers, name="accuracy")
        f1 = _MultiLabelF1(average="macro", name="f1")
    else:
        accuracy, f1 = keras.metrics.CategoricalAccuracy(name="accuracy"), keras.metrics.F1Score(average="macro", name="f1")
    # TensorFlow traces a step a second time if the first one makes variables, which takes seconds.
    f1._build((None, classes), (None, classes))
    return [accuracy, f1]


def _right_answers(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    return keras.ops.cast(keras.ops.equal(labels > 0.5, logits > 0), "float32")


class _MultiLabelF1(keras.metrics.F1Score):
    """Takes logits; a logit above 0 is a probability above 0.5."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(threshold=0.5, **settings)

    def update_state(self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None) -> None:
        super().update_state(y_true > 0.5, keras.ops.sigmoid(y_pred), sample_weight)


def balanced_weights(counts: list[int]) -> list[float]:
    """N / (K n_k) for each of K classes with n_k of N examples, as scikit-learn's `class_weight="balanced"`."""
    return [sum(counts) / (len(counts) * count) for count in counts]


def positive_weights(counts: list[int], examples: int) -> list[float]:
    """(N - n_k) / n_k for each class that n_k of N examples have: in sum, its presence counts as much as its absence.

    A class that all examples have gets 1 / N, because a weight of 0 would leave nothing to learn from.
    """
    return [max(examples - count, 1) / count for count in counts]


def build_schedule(
    learning_rate: float, steps: int | keras.Variable, warmup_steps: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    """A rate that rises linearly from 0 over `warmup_steps`, then falls as a cosine to 0 at `steps` (arXiv:1608.03983).

    Args:
      learning_rate: the greatest rate.
      steps: a number, or how far training is, 0..1, in a variable that changes with each step.
      warmup_steps: the greatest number; with a variable the warm-up ends with the first tenth of training, if not before.
    """
    if isinstance(steps, keras.Variable):
        return _Paced(learning_rate, steps, warmup_steps)
    warmup_steps = min(warmup_steps, steps - 1)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup_steps else learning_rate,
        decay_steps=steps - warmup_steps,
        warmup_target=learning_rate if warmup_steps else None,
        warmup_steps=warmup_steps,
    )


class _Paced(keras.optimizers.schedules.LearningRateSchedule):
    """See `build_schedule`; the cosine falls from the first step on, by 2.5 % in the warm-up."""

    def __init__(self, learning_rate: float, progress: keras.Variable, warmup_steps: int) -> None:
        self._learning_rate = learning_rate
        self._progress = progress
        self._warmup_steps = warmup_steps

    def __call__(self, step: tf.Tensor | int) -> tf.Tensor:
        progress = keras.ops.convert_to_tensor(self._progress)
        rate = self._learning_rate * 0.5 * (1 + keras.ops.cos(np.pi * progress))
        if self._warmup_steps:
            rate *= keras.ops.clip(keras.ops.maximum(keras.ops.cast(step, "float32") / self._warmup_steps, 10 * progress), 0, 1)
        return rate


def build_optimizer(
    learning_rate: float,
    steps: int | keras.Variable,
    steps_per_epoch: int,
    variables: list[keras.Variable],
    config: TrainSettings,
    rate_factors: list[float] | None = None,
) -> keras.optimizers.Optimizer:
    """Makes an optimizer with its schedule, weight decay, clipping, averaging and accumulation.

    Steps are batches. Keras' schedules count batches as well, even if gradients are accumulated (an update then uses the rate
    of its last batch). Its moving averages change at every batch: with accumulation, the momentum is raised to the power
    1/accumulate_steps, so that it is `ema` from update to update.

    Weight decay is decoupled (arXiv:1711.05101): with every optimizer, each update subtracts rate * weight_decay * w from each
    weight w. Biases, scales and offsets of normalisations, and all other variables with fewer than two dimensions do not decay.

    Rate factors multiply the rate of a variable in its updates, its weight decay included. To multiply its gradients would be
    wrong: Adam, LAMB, Lion and Muon take out their scale.

    Args:
      learning_rate: the greatest rate.
      steps: number of batches until the rate is 0, or how far training is, as in `build_schedule`.
      steps_per_epoch: number of batches per epoch.
      variables: the trainable variables, in the model's order.
      config: the optimizer and its settings.
      rate_factors: one for each variable; 1 if not given.
    """
    accumulate = min(config.accumulate_steps, steps) if isinstance(steps, int) else config.accumulate_steps
    own: dict[str, dict[str, Any]] = {"sgd": {"momentum": 0.9, "nesterov": True}}
    warmup_steps = int(config.warmup_epochs * steps_per_epoch)
    if config.steps and isinstance(steps, int):
        warmup_steps = min(warmup_steps, steps // 10)
    optimizer = _OPTIMIZERS[config.optimizer](
        learning_rate=build_schedule(learning_rate, steps, warmup_steps),
        weight_decay=config.weight_decay,
        global_clipnorm=config.clip_norm or None,
        use_ema=config.ema > 0,
        ema_momentum=config.ema ** (1 / accumulate),
        gradient_accumulation_steps=accumulate if accumulate > 1 else None,
        **own.get(config.optimizer, {}),
    )
    optimizer.rate_factors = rate_factors
    optimizer.exclude_from_weight_decay(var_list=[variable for variable in variables if len(variable.shape) < 2])
    return optimizer


class _ClipsOverReplicas:
    """Clips the sum of all replicas' gradients; Keras clips each replica's gradients before it adds them up."""

    global_clipnorm: float | None

    def _clip_gradients(self, gradients: list[tf.Tensor]) -> list[tf.Tensor]:
        context = tf.distribute.get_replica_context()
        replicas = context.num_replicas_in_sync
        if replicas == 1 or not self.global_clipnorm:
            return super()._clip_gradients(gradients)  # type: ignore[misc]
        total = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        return [gradient / replicas for gradient in super()._clip_gradients(total)]  # type: ignore[misc]


class _OwnRates:
    """Lets each variable learn at a rate of its own, at which its weight decays as well."""

    rate_factors: list[float] | None
    weight_decay: float

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        if self.rate_factors:
            learning_rate = learning_rate * self.rate_factors[self._get_variable_index(variable)]  # type: ignore[attr-defined]
        if self.weight_decay and self._use_weight_decay(variable):  # type: ignore[attr-defined]
            variable.assign_sub(learning_rate * self.weight_decay * variable)
        super().update_step(gradient, variable, learning_rate)  # type: ignore[misc]

    def _apply_weight_decay(self, variables: list[keras.Variable]) -> None:
        """Is done in `update_step`, where the variable's rate is known."""


class _ConvolutionalMuon(keras.optimizers.Muon):
    """Muon (arXiv:2502.16982) for convolutions too, as matrices [height * width * channels in, channels out].

    Keras' own Muon uses Adam for convolutions, and Muon for dense kernels. Here the dense kernels are the heads, for which the
    method uses Adam.
    """

    def _should_use_adamw(self, variable: keras.Variable) -> bool:
        return len(variable.shape) != 4 or variable.shape[-1] == 1  # 1: a depthwise kernel

    def _muon_update_step(self, gradient: tf.Tensor, variable: tf.Variable, lr: tf.Tensor, m: tf.Variable) -> None:
        self.assign_add(m, gradient + m * (self.momentum - 1))
        direction = gradient + self.momentum * m  # Nesterov's
        matrix = keras.ops.reshape(direction, (int(np.prod(direction.shape[:-1])), direction.shape[-1]))
        update = self.lr_adjust(lr * self.zeropower_via_newtonschulz5(matrix, self.ns_steps))
        self.assign_sub(variable, keras.ops.reshape(update, direction.shape))


_OPTIMIZERS = {
    name: type(name, (_ClipsOverReplicas, _OwnRates, kind), {})
    for name, kind in {
        "adamw": keras.optimizers.AdamW,
        "adam": keras.optimizers.Adam,
        "nadam": keras.optimizers.Nadam,
        "sgd": keras.optimizers.SGD,
        "lamb": keras.optimizers.Lamb,
        "lion": keras.optimizers.Lion,
        "muon": _ConvolutionalMuon,
    }.items()
}
