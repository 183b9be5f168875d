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
    config.model.hidden = ()  # widths of the dense layers before the output layer
    config.model.activation = 'leaky_relu'  # relu, leaky_relu, elu, gelu, silu, tanh, sigmoid
    config.model.kernel_init = 'xavier_uniform'  # xavier_*, he_*, lecun_*: uniform or normal

    config.data = ConfigDict()
    config.data.name = 'fashion_mnist'  # or 'fashion_mnist_mini': 3,000 images, no download
    config.data.dir = ''  # where tfds keeps its data; '': $TFDS_DATA_DIR or ~/tensorflow_datasets
    config.data.archive_dir = ''  # a folder that holds the publisher's archives already
    config.data.val_fraction = 0.1  # part of each training class held out for validation
    config.data.split_seed = 0  # which examples those are
    config.data.standardize = 'mean_std'  # 'mean_std', 'min_max' (of the training split), 'none'

    config.loss = ConfigDict()
    config.loss.name = 'cross_entropy'  # softmax; or 'bce': one-vs-rest sigmoid
    config.loss.label_smoothing = 0.0  # probability mass spread evenly over the classes

    config.optim = ConfigDict()
    config.optim.name = 'adam'  # 'sgd', 'adam', 'adamw'
    config.optim.learning_rate = 2e-3  # the peak, after warm-up
    config.optim.momentum = 0.9  # sgd only
    config.optim.nesterov = False  # sgd only
    config.optim.weight_decay = 0.0  # kernels only; sgd, adam: as L2; adamw: decoupled
    config.optim.clip_norm = 0.0  # largest global norm of the gradient; 0: no limit
    config.optim.schedule = 'cosine'  # 'constant', 'step'; 'cosine', 'linear': to 0
    config.optim.warmup = '0 steps'  # linear warm-up from 0
    config.optim.decay_at = ('50%', '75%')  # schedule 'step' only: when to decay
    config.optim.decay_factor = 0.1  # schedule 'step' only: by how much

    config.train = ConfigDict()
    config.train.epochs = 10.0  # passes over the training split
    config.train.steps = config_dict.placeholder(int)  # instead of epochs, where it is set
    config.train.batch_size = 128  # over all devices together

    config.eval = ConfigDict()
    config.eval.batch_size = 512  # over all devices together
    config.eval.every = '1 epoch'  # how often the validation split is evaluated

    config.checkpoint = ConfigDict()
    config.checkpoint.every = '1 epoch'  # the best on the validation split is always kept too
    config.checkpoint.keep = 2  # how many of the latest are kept

    config.parallel = ConfigDict()
    config.parallel.driver = 'auto'  # 'jit', 'pmap'; auto: jit on one device, pmap on several

    config.log = ConfigDict()
    config.log.every = '50 steps'  # how often a row of training metrics is written

    return config.lock()
