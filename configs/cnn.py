"""The network of the reference material: two convolutions, two pools, one dense layer.

Reproduces:  nothing published; it is the default from which every other config starts.
Command:     python -m neptune_jax.main --config=configs/cnn.py
Expected:    see the results table in README.md
"""

from ml_collections import ConfigDict, config_dict


def get_config():
    config = ConfigDict()
    config.seed = 0  # initial parameters and data order; the split has a seed of its own

    config.model = ConfigDict()
    config.model.name = 'cnn'  # a key of neptune_jax.models.MODELS
    config.model.features = (32, 64)  # channels of each convolution; a 2x2 max pool follows each
    config.model.kernel_size = 3  # height and width of every convolution
    config.model.padding = 'SAME'  # 'SAME' keeps height and width; 'VALID' adds no padding
    config.model.norm = 'none'  # or 'batch': batch normalisation after each convolution
    config.model.hidden = ()  # widths of the dense layers before the output layer
    config.model.dropout = 0.0  # probability to drop a feature before each dense layer
    config.model.activation = 'leaky_relu'  # relu, leaky_relu, elu, gelu, silu, tanh, sigmoid
    config.model.dtype = 'float32'  # 'bfloat16': layers compute in it; parameters stay float32
    config.model.kernel_init = 'xavier_uniform'  # xavier_*, he_*, lecun_*: uniform or normal

    config.data = ConfigDict()
    config.data.name = 'fashion_mnist'  # a key of neptune_jax.data.sources.SOURCES
    config.data.dir = ''  # where tfds keeps its data; '': $TFDS_DATA_DIR or ~/tensorflow_datasets
    config.data.archive_dir = ''  # a folder that holds the publisher's archives already
    config.data.path = ''  # image_folder: the folder; arrays: an .npz, .npy or .csv
    config.data.labels_path = ''  # arrays: the labels that belong to an .npy of images
    config.data.label_column = 'label'  # arrays: the column of a .csv that is no pixel
    config.data.image_size = ()  # (height, width) of one's own images; (): as the first one
    config.data.channels = 0  # 1 or 3; 0: as the first image
    config.data.resize = ''  # '': refuse other sizes; 'stretch', 'crop' (the centre), 'pad'
    config.data.examples = 6000  # synthetic only, 1/6 of them to test
    config.data.classes = 10  # synthetic only
    config.data.val_fraction = 0.1  # part of each training class held out, if no split is given
    config.data.test_fraction = 0.1  # the same for the test, if no split is given
    config.data.split_seed = 0  # which examples those are
    config.data.folds = 0  # cross-validation: so many folds instead of val_fraction
    config.data.fold = 0  # which of them validates
    config.data.subset = config_dict.placeholder(int)  # train on so many examples a class
    config.data.sampler = 'shuffle'  # or 'balanced': each class equally likely, with replacement
    config.data.standardize = 'mean_std'  # 'min_max', 'per_image', 'none', or a preset's name
    config.data.mode = 'auto'  # 'device', 'host', 'stream'; auto: by size
    config.data.workers = 1  # processes that read files in mode 'stream'

    config.data.clean = ConfigDict()
    config.data.clean.duplicates = 'drop'  # or 'keep'; also across splits: the test's copy stays
    config.data.clean.near_duplicates = 'count'  # 'drop', 'ignore'; by perceptual hash
    config.data.clean.unreadable = 'drop'  # or 'error'; images that cannot be decoded
    config.data.clean.missing_pixels = 'mean'  # 'median', 'zero'; 'drop' the image; for NaN
    config.data.clean.max_pixels = 50_000_000  # larger images are refused: decompression bombs

    config.augment = ConfigDict()
    config.augment.flip = 'none'  # 'random'; 'alternating': every second epoch
    config.augment.crop_padding = 0  # pixels of zeros around, then a random crop
    config.augment.translate = 0  # largest shift in pixels
    config.augment.rotate = 0.0  # largest angle in degrees
    config.augment.brightness = 0.0  # factor in [1 - x, 1 + x]
    config.augment.contrast = 0.0  # factor in [1 - x, 1 + x]
    config.augment.saturation = 0.0  # factor in [1 - x, 1 + x]; colour images only
    config.augment.cutout = 0  # side of a square of zeros in pixels
    config.augment.erase = 0.0  # probability of a random rectangle of noise
    config.augment.mixup = 0.0  # alpha of the Beta distribution; 0: off
    config.augment.cutmix = 0.0  # alpha of the Beta distribution; 0: off

    config.loss = ConfigDict()
    config.loss.name = 'cross_entropy'  # softmax; or 'bce': one-vs-rest sigmoid
    config.loss.label_smoothing = 0.0  # probability mass spread evenly over the classes
    config.loss.class_weights = 'none'  # or 'balanced': a class counts the more the rarer it is

    config.optim = ConfigDict()
    config.optim.name = 'adam'  # 'sgd', 'adam', 'adamw'
    config.optim.learning_rate = 2e-3  # the peak, after warm-up
    config.optim.momentum = 0.9  # sgd only
    config.optim.nesterov = False  # sgd only
    config.optim.weight_decay = 0.0  # kernels only; sgd, adam: as L2; adamw: decoupled
    config.optim.clip_norm = 0.0  # largest global norm of the gradient; 0: no limit
    config.optim.ema_decay = 0.0  # of the averaged parameters that are evaluated; 0: no average
    config.optim.schedule = 'cosine'  # 'constant', 'step'; 'cosine', 'linear': to 0
    config.optim.warmup = '0 steps'  # linear warm-up from 0
    config.optim.decay_at = ('50%', '75%')  # schedule 'step' only: when to decay
    config.optim.decay_factor = 0.1  # schedule 'step' only: by how much

    config.train = ConfigDict()
    config.train.epochs = 10.0  # passes over the training split
    config.train.steps = config_dict.placeholder(int)  # instead of epochs, where it is set
    config.train.batch_size = 128  # over all devices together
    config.train.steps_per_call = 1  # in one program, so that the host does not wait between them
    config.train.accumulate = 1  # cut a batch into so many parts, one after another: less memory
    config.train.deterministic = False  # the same bits each time also on a GPU; slower there
    config.train.debug_nans = False  # stop at the operation that makes a NaN; slow
    config.train.profile_steps = ()  # first and last step of a trace for TensorBoard or XProf

    config.eval = ConfigDict()
    config.eval.batch_size = 512  # over all devices together
    config.eval.every = '1 epoch'  # how often the validation split is evaluated

    config.checkpoint = ConfigDict()
    config.checkpoint.every = '1 epoch'  # or '60 seconds'; the best on validation is kept too
    config.checkpoint.keep = 2  # how many of the latest are kept
    config.checkpoint.restore_from = ''  # a run directory from whose best weights to start

    config.parallel = ConfigDict()
    config.parallel.driver = 'auto'  # 'jit', 'pmap', 'shard_map'; auto: jit on one, else pmap
    config.parallel.num_devices = config_dict.placeholder(int)  # of one process; None: all
    config.parallel.sync_batch_norm = True  # batch statistics over all devices, not of each
    config.parallel.distributed = False  # join other processes, also where nothing says so

    config.log = ConfigDict()
    config.log.every = '50 steps'  # how often a row of training metrics is written

    config.neptune = ConfigDict()
    config.neptune.mode = 'auto'  # 'online', 'offline', 'disabled'; auto: by $NEPTUNE_API_TOKEN
    config.neptune.project = ''  # 'WORKSPACE/PROJECT'; '': $NEPTUNE_PROJECT
    config.neptune.name = ''  # '': that of the run directory
    config.neptune.description = ''
    config.neptune.tags = ()
    config.neptune.final_wait_seconds = 20.0  # how long the end waits for what is not sent yet
    config.neptune.upload_checkpoint = False  # the best one
    config.neptune.capture_stdout = False  # what the run prints
    config.neptune.capture_hardware = False  # the load of processors and memory, while it trains
    config.neptune.capture_source = False  # the Python files of the package
    config.neptune.capture_git_diff = False  # what is not committed

    return config.lock()
