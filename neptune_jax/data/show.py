"""Shows what a model will see in training: examples before and after augmentation.

    python -m neptune_jax.data.show --config=configs/cnn.py --config.augment.flip=random

Writes a PNG with one row an example: as it is, then as in the first epochs of a training.
"""

from absl import flags

from neptune_jax import cli

OUT = flags.DEFINE_string('out', 'augmentation.png', 'The picture to write.')
EXAMPLES = 8
EPOCHS = 6


def main(config):
    import jax
    import numpy as np

    from neptune_jax import build

    experiment = build.create(config)
    examples = experiment.order[0][:EXAMPLES]
    data = experiment.dataset
    batch = {
        'image': data.read_images(examples).astype(np.float32) / 255,
        'label': data.labels[examples],
        'index': examples,
    }
    augment = jax.jit(experiment.augment)
    key = jax.random.key(config.seed)
    seen = [
        jax.device_get(augment(batch, key, np.int32(epoch * experiment.steps_per_epoch), epoch))
        for epoch in np.arange(EPOCHS, dtype=np.int32)
    ]
    draw(batch, seen, data.class_names).savefig(OUT.value, dpi=120)
    print(f'wrote {OUT.value}')


def draw(batch, seen, class_names):
    """Returns a figure: a row for each example, the original and what `seen` has of each epoch."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.5 * (EPOCHS + 1), 1.7 * len(batch['image'])), layout='constrained')
    grid = figure.subplots(len(batch['image']), EPOCHS + 1, squeeze=False)
    for column, shown in enumerate([batch, *seen]):
        for row, axes in enumerate(grid[:, column]):
            image = shown['image'][row]
            axes.imshow(
                image.squeeze(-1) if image.shape[-1] == 1 else image, 'gray', vmin=0, vmax=1
            )
            axes.axis('off')
            title = class_names[shown['label'][row]]
            if 'other_label' in shown:
                weight = shown['label_weight'][row]
                other = class_names[shown['other_label'][row]]
                title = f'{weight:.0%} {title}\n{1 - weight:.0%} {other}'
            axes.set_title(title, fontsize=7)
    grid[0, 0].text(
        0.5, 1.35, 'as it is', transform=grid[0, 0].transAxes, ha='center', weight='bold'
    )
    for epoch in range(EPOCHS):
        axes = grid[0, epoch + 1]
        axes.text(0.5, 1.35, f'epoch {epoch}', transform=axes.transAxes, ha='center', weight='bold')
    return figure


if __name__ == '__main__':
    cli.run(main)
