"""Softmax regression on small images, in NumPy: the numbers that a training must show."""

import numpy as np

_RNG = np.random.default_rng(0)
CLASSES = 10
IMAGES = _RNG.integers(0, 256, (100, 5, 4, 1)).astype(np.uint8)
COUNTS = np.array([15, 9, 6, 6, 6, 6, 3, 3, 3, 3])  # of the classes in training
LABELS = np.concatenate(
    [_RNG.permutation(np.repeat(np.arange(CLASSES), COUNTS)), np.arange(40) % CLASSES]
)
SPLITS = {'train': slice(0, 60), 'val': slice(60, 80), 'test': slice(80, 100)}
BATCH = 20  # so an epoch has three steps


def standardized(examples):
    """The images of some examples, float64[n, 20], by mean and deviation of the training split."""
    train = IMAGES[SPLITS['train']] / 255
    return ((IMAGES[examples] / 255 - train.mean()) / train.std()).reshape(len(examples), -1)


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def losses(logits, labels, *, bce=False, smoothing=0.0, class_weights=None):
    """Returns the loss of each example, and its gradient with respect to the logits."""
    targets = (1 - smoothing) * np.eye(CLASSES)[labels] + smoothing / CLASSES
    if bce:
        probabilities = 1 / (1 + np.exp(-logits))
        against = (1 - targets) * np.log(1 - probabilities)
    else:
        probabilities, against = softmax(logits), 0.0
    values = -(targets * np.log(probabilities) + against).sum(axis=-1)
    weights = np.ones(len(labels)) if class_weights is None else class_weights[labels]
    return weights * values, weights[:, None] * (probabilities - targets)


def sgd(momentum=0.0, nesterov=False, decay=0.0):
    """Sutskever et al. (2013); L2 regularisation of the kernel."""
    velocity = [0.0, 0.0]

    def update(grads, params):
        grads = [grads[0] + decay * params[0], grads[1]]
        for i, grad in enumerate(grads):
            velocity[i] = momentum * velocity[i] + grad
        looked_ahead = [grad + momentum * v for grad, v in zip(grads, velocity, strict=True)]
        return looked_ahead if nesterov else list(velocity)

    return update


def adam(decay=0.0, decoupled=False):
    """Kingma and Ba (2015); Loshchilov and Hutter (2019), algorithm 2."""
    first, second, count = [0.0, 0.0], [0.0, 0.0], 0

    def update(grads, params):
        nonlocal count
        count += 1
        grads = [grads[0] + decay * (not decoupled) * params[0], grads[1]]
        found = []
        for i, grad in enumerate(grads):
            first[i] = 0.9 * first[i] + 0.1 * grad
            second[i] = 0.999 * second[i] + 0.001 * grad**2
            mean, square = first[i] / (1 - 0.9**count), second[i] / (1 - 0.999**count)
            found.append(mean / (np.sqrt(square) + 1e-8))
        return [found[0] + decay * decoupled * params[0], found[1]]

    return update


def train(params, batches, rates, *, update, clip=np.inf, **options):
    """Trains [kernel, bias] on batches of examples.

    Returns the rows (loss, gradient norm, learning rate) of the steps, and the parameters.
    """
    rows = []
    for examples, rate in zip(batches, rates, strict=True):
        images = standardized(examples)
        values, residual = losses(images @ params[0] + params[1], LABELS[examples], **options)
        residual /= len(examples)
        grads = [images.T @ residual, residual.sum(axis=0)]
        norm = np.sqrt(sum((grad**2).sum() for grad in grads))
        rows.append((values.mean(), norm, rate))
        grads = [grad * min(1, clip / norm) for grad in grads]
        updates = update(grads, params)
        params = [param - rate * change for param, change in zip(params, updates, strict=True)]
    return np.array(rows), params
