"""Every field of a config but the model's: its default, its meaning, its type and its range.

A config file starts from `get_config()` and states what differs. `check` refuses values out of
range, and docs/configs.md is written from FIELDS. The fields of `config.model` are those of the
Flax module that `model.name` names; models/ documents them.
"""

import difflib

from ml_collections import ConfigDict, config_dict

from neptune_jax.errors import UserError, one_line
from neptune_jax.fields import IMPORT, Field
from neptune_jax.fields import check as check_field

# Devices count in int32 and compute in float32: numbers of steps, examples and pixels are below
# 2**31, rates and factors below 3.4e38.
_LENGTH = 'steps epochs examples %'

FIELDS = {
    'seed': Field(
        0, 'Seed of the initial parameters, the order of the data and augmentation.', '[0, 2**31)'
    ),
    # ------------------------------------------------------------------------------------- model
    'model.name': Field(
        'cnn',
        'The network; its other fields are in the model group.',
        '',
        ('cnn', 'resnet'),
        IMPORT,
    ),
    # -------------------------------------------------------------------------------------- data
    'data.name': Field(
        'fashion_mnist',
        'The data set.',
        choices=tuple(
            'mnist kmnist fashion_mnist fashion_mnist_mini cifar10 cifar100 image_folder arrays '
            'synthetic'.split()
        ),
        or_form="'tfds:NAME'",
    ),
    'data.dir': Field(
        '', 'Folder of prepared data; empty: $TFDS_DATA_DIR or ~/tensorflow_datasets.'
    ),
    'data.archive_dir': Field(
        '', "Folder that holds the publisher's archives; empty: they are found or downloaded."
    ),
    'data.path': Field('', 'image_folder: the folder; arrays: an .npz, .npy or .csv file.'),
    'data.labels_path': Field('', 'arrays: the .npy file of labels for an .npy file of images.'),
    'data.label_column': Field('label', 'arrays: the column of a .csv file that holds the labels.'),
    'data.image_size': Field(
        (),
        'Height and width of the images; empty: as the first image (synthetic: 32, 32).',
        '[1, 32768]',
        elements=int,
        sizes=(0, 2),
    ),
    'data.channels': Field(
        0, '1 for grey, 3 for colour, 0: as the first image (synthetic: 3).', '[0, 3]'
    ),
    'data.resize': Field(
        '',
        "What to do with images of another size; '' refuses them, 'crop' keeps the centre.",
        choices=('', 'stretch', 'crop', 'pad'),
    ),
    'data.white': Field(
        0.0,
        'The number that means white in arrays and 16-bit files; 0: by type and range.',
        '[0, 1e38]',
    ),
    'data.examples': Field(
        6000, 'synthetic: number of images; a sixth of them to test.', '[1, 2**31)'
    ),
    'data.classes': Field(10, 'synthetic: number of classes.', '[2, 2**31)'),
    'data.val_fraction': Field(
        0.1, 'Share of the images held out to validate, if the data have no such split.', '[0, 1)'
    ),
    'data.test_fraction': Field(
        0.1, 'Share of the images held out to test, if the data have no such split.', '[0, 1)'
    ),
    'data.split_seed': Field(0, 'Seed of these splits, of folds and of subsets.', '[0, 2**31)'),
    'data.folds': Field(
        0, 'Cross-validation: number of folds, instead of val_fraction; 0: off.', '[0, 2**31)'
    ),
    'data.fold': Field(0, 'Cross-validation: the fold that validates, from 0.', '[0, 2**31)'),
    'data.subset': Field(
        None, 'Train on this many images of each class; unset: all.', '[1, 2**31)', kind=int
    ),
    'data.sampler': Field(
        'shuffle',
        "'balanced' draws each class equally often, with replacement.",
        choices=('shuffle', 'balanced'),
    ),
    'data.standardize': Field(
        'mean_std',
        'How pixels are standardised; the names of data sets stand for published constants.',
        choices=tuple(
            'mean_std min_max none per_image mnist fashion_mnist cifar10 cifar100 imagenet'.split()
        ),
    ),
    'data.mode': Field(
        'auto',
        "Where batches come from: device memory, host memory or files; 'auto' decides by size.",
        choices=('auto', 'device', 'host', 'stream'),
    ),
    'data.workers': Field(
        1, "Processes that read files in mode 'stream'; 0: a thread.", '[0, 1024]'
    ),
    'data.clean.duplicates': Field(
        'drop', 'Images with equal pixels, also across splits.', choices=('drop', 'keep')
    ),
    'data.clean.near_duplicates': Field(
        'count', 'Images that are nearly the same picture.', choices=('count', 'drop', 'ignore')
    ),
    'data.clean.unreadable': Field(
        'drop', 'Images that cannot be decoded.', choices=('drop', 'error')
    ),
    'data.clean.missing_pixels': Field(
        'mean',
        "What replaces NaN pixels, from the same image; 'drop' drops the image.",
        choices=('mean', 'median', 'zero', 'drop'),
    ),
    'data.clean.max_pixels': Field(
        50_000_000,
        'Larger images count as unreadable: they may be decompression bombs.',
        '[1, 2**63)',
    ),
    # ----------------------------------------------------------------------------------- augment
    'augment.flip': Field(
        'none',
        "Horizontal flip: at random, or 'alternating', in every second epoch.",
        choices=('none', 'random', 'alternating'),
    ),
    'augment.crop_padding': Field(
        0, 'Pixels of black on each side, then a random crop.', '[0, 32768]'
    ),
    'augment.translate': Field(0, 'Largest shift, in pixels.', '[0, 32768]'),
    'augment.rotate': Field(0.0, 'Largest rotation, in degrees.', '[0, 180]'),
    'augment.brightness': Field(0.0, 'Factor drawn from [1 - x, 1 + x].', '[0, 1]'),
    'augment.contrast': Field(0.0, 'Factor drawn from [1 - x, 1 + x].', '[0, 1]'),
    'augment.saturation': Field(
        0.0, 'Factor drawn from [1 - x, 1 + x]; colour images only.', '[0, 1]'
    ),
    'augment.cutout': Field(0, 'Side of a black square, in pixels.', '[0, 32768]'),
    'augment.erase': Field(0.0, 'Probability of a random rectangle of noise.', '[0, 1]'),
    'augment.mixup': Field(0.0, 'Alpha of the Beta distribution of mixup; 0: off.', '[0, 100]'),
    'augment.cutmix': Field(0.0, 'Alpha of the Beta distribution of CutMix; 0: off.', '[0, 100]'),
    'augment.extra': Field(
        (),
        'Functions of your own from (key, image) to image.',
        or_form=IMPORT,
        elements=str,
    ),
    # -------------------------------------------------------------------------------------- loss
    'loss.name': Field(
        'cross_entropy',
        "Softmax cross-entropy, or 'bce': one sigmoid a class.",
        choices=('cross_entropy', 'bce'),
        or_form=IMPORT,
    ),
    'loss.label_smoothing': Field(
        0.0, 'Probability mass spread evenly over all classes.', '[0, 1)'
    ),
    'loss.class_weights': Field(
        'none',
        "'balanced' weighs a class by the inverse of its frequency.",
        choices=('none', 'balanced'),
    ),
    # ------------------------------------------------------------------------------------- optim
    'optim.name': Field('adam', 'The optimizer.', choices=('sgd', 'adam', 'adamw'), or_form=IMPORT),
    'optim.learning_rate': Field(2e-3, 'The highest rate, reached after the warm-up.', '[0, 1e38]'),
    'optim.momentum': Field(0.9, 'sgd: momentum; 0: none.', '[0, 1]'),
    'optim.nesterov': Field(False, "sgd: Nesterov's momentum."),
    'optim.weight_decay': Field(
        0.0,
        'Of kernels only: L2 regularisation for sgd and adam, decoupled for adamw.',
        '[0, 1e38]',
    ),
    'optim.clip_norm': Field(0.0, 'Largest global norm of the gradient; 0: no limit.', '[0, inf]'),
    'optim.ema_decay': Field(
        0.0, 'Decay of the moving average of the parameters that is evaluated; 0: none.', '[0, 1)'
    ),
    'optim.schedule': Field(
        'cosine',
        "'cosine' and 'linear' end at 0; 'step' decays at the lengths of decay_at.",
        choices=('constant', 'step', 'cosine', 'linear'),
        or_form=IMPORT,
    ),
    'optim.warmup': Field(
        '0 steps', 'Linear warm-up; its first step has a rate above 0.', '[0, 1e12]', units=_LENGTH
    ),
    'optim.decay_at': Field(
        ('50%', '75%'),
        "schedule 'step': when the rate decays, from the start of the run.",
        '(0, 1e12]',
        units=_LENGTH,
        elements=str,
    ),
    'optim.decay_factor': Field(0.1, "schedule 'step': factor of each decay.", '(0, 1e38]'),
    'optim.options': Field({}, 'Free fields for an optimizer or a schedule of your own.'),
    # ------------------------------------------------------------------------------------- train
    'train.epochs': Field(10.0, 'Passes over the training split.', '(0, 2**31)'),
    'train.steps': Field(
        None, 'Optimizer steps, instead of epochs; unset: epochs count.', '[1, 2**31)', kind=int
    ),
    'train.batch_size': Field(128, 'Examples of a step, over all devices together.', '[1, 2**31)'),
    'train.steps_per_call': Field(
        1, 'Steps in one compiled program, so that the host is not waited for.', '[1, 65536]'
    ),
    'train.accumulate': Field(
        1,
        'Parts of a batch whose gradients are averaged one after another, to save memory.',
        '[1, 2**31)',
    ),
    'train.deterministic': Field(False, 'The same bits in each run on a GPU too; slower there.'),
    'train.debug_nans': Field(False, 'Stop at the operation that makes a NaN; slow.'),
    'train.profile_steps': Field(
        (),
        'First and last step of a profiler trace; empty: none.',
        '[1, 2**31)',
        elements=int,
        sizes=(0, 2),
    ),
    # -------------------------------------------------------------------------------------- eval
    'eval.batch_size': Field(
        512, 'Examples evaluated at once, over all devices together.', '[1, 2**20]'
    ),
    'eval.every': Field(
        '1 epoch', 'How often the validation split is evaluated.', '(0, 1e12]', units=_LENGTH
    ),
    # -------------------------------------------------------------------------------- checkpoint
    'checkpoint.every': Field(
        '1 epoch',
        'How often the state is saved; the best one is saved as well.',
        '(0, 1e12]',
        units=f'seconds {_LENGTH}',
    ),
    'checkpoint.keep': Field(2, 'How many of the latest checkpoints are kept.', '[1, 2**31)'),
    'checkpoint.restore_from': Field(
        '', 'A run directory, or a .safetensors file, whose weights a new run starts from.'
    ),
    'checkpoint.names': Field(
        '',
        "The names in a .safetensors file: '' those of this package, or PyTorch's.",
        choices=('', 'torch'),
        or_form=IMPORT,
    ),
    # ---------------------------------------------------------------------------------- parallel
    'parallel.driver': Field(
        'auto',
        "How a step runs on devices; 'auto': jit on one device, pmap on several.",
        choices=('auto', 'jit', 'pmap', 'shard_map'),
    ),
    'parallel.num_devices': Field(
        None, 'Devices used by a single process; unset: all.', '[1, 2**31)', kind=int
    ),
    'parallel.sync_batch_norm': Field(
        True, 'Batch statistics over all devices; False: per-device batch statistics.'
    ),
    'parallel.distributed': Field(False, 'Join other processes even if no launcher is detected.'),
    'parallel.wait_seconds': Field(
        300.0, 'How long a process waits for the others to join it.', '(0, 86400]'
    ),
    # --------------------------------------------------------------------------------------- log
    'log.every': Field(
        '50 steps', 'How often a row of training metrics is written.', '(0, 1e12]', units=_LENGTH
    ),
    # ------------------------------------------------------------------------------------ report
    'report.every_run': Field(
        True, 'A run that has finished draws report.html, a page of all its results.'
    ),
    # ----------------------------------------------------------------------------------- neptune
    'neptune.mode': Field(
        'auto',
        "Whether a run is sent while it trains; 'auto': if $NEPTUNE_API_TOKEN is set.",
        choices=('auto', 'online', 'offline', 'disabled'),
    ),
    'neptune.project': Field('', "'WORKSPACE/PROJECT'; empty: $NEPTUNE_PROJECT."),
    'neptune.name': Field('', 'Name of the run; empty: that of the run directory.'),
    'neptune.description': Field('', 'Description of the run.'),
    'neptune.tags': Field((), 'Tags of the run.', elements=str),
    'neptune.final_wait_seconds': Field(
        20.0, 'How long a finished run waits until everything is sent.', '[0, 1e9]'
    ),
    'neptune.upload_checkpoint': Field(False, 'Send the best checkpoint.'),
    'neptune.capture_stdout': Field(False, 'Send what the run prints.'),
    'neptune.capture_hardware': Field(False, 'Send the load of processors and memory.'),
    'neptune.capture_source': Field(False, "Send the package's Python files."),
    'neptune.capture_git_diff': Field(False, 'Send uncommitted changes.'),
}


def get_config() -> ConfigDict:
    """Returns a locked ConfigDict with the default of every field."""
    config = ConfigDict()
    for name, field in FIELDS.items():
        *groups, last = name.split('.')
        group = config
        for each in groups:
            if each not in group:
                group[each] = ConfigDict()
            group = group[each]
        if field.default is None:
            group[last] = config_dict.placeholder(field.kind)
        else:
            group[last] = ConfigDict() if field.default == {} else field.default
    return config.lock()


def check(config: ConfigDict) -> None:
    """Checks each field of a config except those of the model, and that it has no others.

    Raises:
        UserError: a field is missing, unknown, of another type or out of its range.
    """
    check_names(config)
    for name, field in FIELDS.items():
        group = config
        for part in name.split('.'):
            group = _get(group, part, name)
        check_field(name, field, group)
    for name, group in (('model', config.model), ('optim.options', config.optim.options)):
        try:
            group.to_json()
        except Exception as error:
            raise UserError(
                f'the group {name} holds what no JSON file can hold: {one_line(error)}'
            ) from error


def check_names(config: ConfigDict) -> None:
    """Raises UserError unless a config has all fields of FIELDS and no others."""
    for name in FIELDS:
        group, path = config, ''
        for part in name.split('.'):
            if not isinstance(group, ConfigDict):
                raise UserError(
                    f'the group {path} of the config must be a ConfigDict, not '
                    f'{type(group).__name__}'
                )
            if part not in group:
                raise UserError(
                    f'the config has no field {name}; start it from '
                    'neptune_jax.defaults.get_config()'
                )
            path = f'{path}.{part}'.lstrip('.')
            if path != name:
                group = _get(group, part, path)
    _refuse_unknown(config)


def _get(group, part, name):
    try:
        return group[part]
    except Exception as error:  # a placeholder that must be set, or a reference that fails
        raise UserError(f'{name} has no value: {one_line(error)}') from error


def _refuse_unknown(config, prefix=''):
    for key in config:
        name = f'{prefix}{key}'
        if name in FIELDS or name == 'model':
            continue
        if not any(field.startswith(f'{name}.') for field in FIELDS):
            nearest = difflib.get_close_matches(name, FIELDS, n=1, cutoff=0)
            raise UserError(f'the config has a field {name}; did you mean {nearest[0]}?')
        _refuse_unknown(config[key], f'{name}.')
