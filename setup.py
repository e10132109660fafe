# SPDX-License-Identifier: Apache-2.0
"""Package metadata of ppcls_ise: ``pip install .``

Paddle and PaddleClas are not among the requirements. Which Paddle build fits depends on the
machine: take the extra ``cpu`` or ``gpu``, or a build from Paddle's own index. And the pins of the
paddleclas wheel no longer install: ``pip install --no-deps paddleclas==2.4.2``.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def read_version() -> str:
    """The ``__version__`` of ppcls_ise/__init__.py, read without importing the package."""
    text = (ROOT / "ppcls_ise" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"$', text, flags=re.MULTILINE)
    if match is None:
        raise RuntimeError('ppcls_ise/__init__.py has no line of the form __version__ = "1.2.3"')
    return match.group(1)


def read_readme() -> str:
    readme = ROOT / "README.md"
    return readme.read_text(encoding="utf-8") if readme.is_file() else ""


setup(
    name="ppcls_ise",
    version=read_version(),
    description="Unsupervised person re-identification (ISE, CVPR 2022) as a plugin of PaddleClas",
    long_description=read_readme(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=[*find_packages(include=["ppcls_ise", "ppcls_ise.*"]), "ppcls_ise.configs"],
    # Beside the package here, inside of it where it is installed.
    package_dir={"ppcls_ise.configs": "configs"},
    package_data={"ppcls_ise.configs": ["*.yaml"], "ppcls_ise.visualization": ["templates/*"]},
    entry_points={"console_scripts": ["ppcls-ise = ppcls_ise.cli.main:main"]},
    python_requires=">=3.10",
    # What the plugin and the engines of PaddleClas (2.4.2 and develop) import, Paddle apart.
    install_requires=[
        "easydict",
        "filelock>=3.12",
        "faiss-cpu>=1.8",
        "jinja2>=3.1",
        "matplotlib",
        "numpy>=1.23.5",
        "opencv-python-headless>=4.6",
        "pillow>=9.1",
        "PyYAML>=5.1",
        "requests",
        "safetensors>=0.4.3",
        "scikit-learn>=1.2",
        "scipy>=1.10",
        "setuptools",  # `import paddle` imports it, and declares it only for Python 3.12
        "six",
        "threadpoolctl>=3",
        "tqdm",
        "visualdl>=2.5.3",
    ],
    extras_require={
        "cpu": ["paddlepaddle>=2.6.2,<4"],
        # The newest on PyPI; its numpy and OpenCV must be of the numpy 1 age. For Paddle 3.x on a
        # GPU, install paddlepaddle-gpu from Paddle's own index and leave this extra out.
        "gpu": ["paddlepaddle-gpu==2.6.2", "numpy<2", "opencv-python-headless<4.11"],
        "onnx": ["onnxruntime", "paddle2onnx>=1.2"],  # ppcls-ise export --onnx
        # What the web viewer of visualdl imports, docs/en/visualdl.md; the writer needs none of it.
        "viewer": [
            "Flask-Babel>=3.0.0",
            "bce-python-sdk",
            "flask>=1.1.1",
            "pandas",
            "psutil",
            "rarfile",
        ],
        "dev": [
            "hypothesis",
            "import-linter",
            "mypy",
            "playwright",
            "pytest>=7",
            "pytest-timeout",
            "pytest-xdist",
            "ruff",
            "types-PyYAML",
        ],
    },
    classifiers=[
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
