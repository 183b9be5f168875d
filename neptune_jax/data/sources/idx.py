"""MNIST and data sets in its IDX format: four gzipped files of unsigned bytes."""

from pathlib import Path

import numpy as np

from neptune_jax.data.sources.archives import ArchiveBuilder

# Every publisher of this format uses these names.
FILES = (
    'train-images-idx3-ubyte.gz',
    'train-labels-idx1-ubyte.gz',
    't10k-images-idx3-ubyte.gz',
    't10k-labels-idx1-ubyte.gz',
)


class IdxBuilder(ArchiveBuilder):
    """Grey images of 28x28 from four IDX files."""

    IMAGE_SHAPE = (28, 28, 1)

    def parse(self, contents: dict[str, bytes]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Returns the images and labels of each split; see ArchiveBuilder."""
        arrays = [parse_idx(contents[name]) for name in FILES]
        train, test = arrays[:2], arrays[2:]
        return {
            split: (images.reshape(-1, *self.IMAGE_SHAPE), labels)
            for split, (images, labels) in {'train': train, 'test': test}.items()
        }


def parse_idx(content: bytes) -> np.ndarray:
    """Returns the array in an IDX file of unsigned bytes, uint8[...].

    The format (http://yann.lecun.com/exdb/mnist): two zero bytes, the type (8: uint8), the number
    of dimensions, each dimension as a big-endian int32, then the elements, the last dimension
    fastest.
    """
    dimensions = content[3]
    shape = np.frombuffer(content, '>i4', count=dimensions, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


class Mnist(IdxBuilder):
    """MNIST (LeCun et al., 1998): 60,000 and 10,000 images of handwritten digits."""

    CLASS_NAMES = tuple('0123456789')
    SHA256 = dict(
        zip(
            FILES,
            (
                '440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609',
                '3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c',
                '8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6',
                'f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6',
            ),
            strict=True,
        )
    )
    URL = 'https://storage.googleapis.com/cvdf-datasets/mnist/'


class Kmnist(IdxBuilder):
    """Kuzushiji-MNIST (Clanuwat et al., 2018): 60,000 and 10,000 hiragana. CC BY-SA 4.0."""

    CLASS_NAMES = ('o', 'ki', 'su', 'tsu', 'na', 'ha', 'ma', 'ya', 're', 'wo')
    SHA256 = dict(
        zip(
            FILES,
            (
                '51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4',
                'e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17',
                'edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5',
                '20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c',
            ),
            strict=True,
        )
    )
    URL = 'http://codh.rois.ac.jp/kmnist/dataset/kmnist/'


class FashionMnist(IdxBuilder):
    """Fashion-MNIST (Xiao et al., 2017): 60,000 and 10,000 images of clothes. MIT."""

    CLASS_NAMES = (
        'T-shirt/top',
        'Trouser',
        'Pullover',
        'Dress',
        'Coat',
        'Sandal',
        'Shirt',
        'Sneaker',
        'Bag',
        'Ankle boot',
    )
    SHA256 = dict(
        zip(
            FILES,
            (
                'c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888',
                'bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9',
                '5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b',
                '0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34',
            ),
            strict=True,
        )
    )
    URL = 'http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/'
    FOLDER = '/usr/share/datasets/fashion-mnist'
    DEBIAN_PACKAGE = 'dataset-fashion-mnist'


class FashionMnistMini(IdxBuilder):
    """The first 250 training and 50 test images of each class of Fashion-MNIST; in the package."""

    CLASS_NAMES = FashionMnist.CLASS_NAMES
    SHA256 = dict(
        zip(
            FILES,
            (
                '3ca58825dab4cbbfeea27e6b047aac4e2079a44d79b3fb15c06d22db2582a81a',
                '38d04293f429605b6c713608e16c0e56f43fcf50bc393b31eafdfd423626fbf1',
                '8fdf02ada67d92f4db5ba3c2f6c5b1cc6186ba6e0efd4914661e4389e103b81e',
                '9c71808b3a0ebfc091442c0009a7aa35be2d9622bf6aaf6891ce9a0088e96c07',
            ),
            strict=True,
        )
    )
    URL = FashionMnist.URL
    FOLDER = str(Path(__file__).parent / 'fashion_mnist_mini')
