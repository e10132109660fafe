# SPDX-License-Identifier: Apache-2.0
"""Settings that work and are probably a mistake are said when a run starts."""

import pytest
import yaml

import ppcls_ise
from ppcls_ise.engine.input_remarks import odd_transforms
from tests.conftest import REPOSITORY, SYNTHETIC, lite_overrides
from tests.engine.test_engine import engine_of, log_of


@pytest.fixture(autouse=True, scope="module")
def registered():
    ppcls_ise.register()


def changed(path, value, *, source=SYNTHETIC):
    """The config with one value changed in one place, as an editor of the file could."""
    config = yaml.safe_load(
        yaml.dump(yaml.safe_load(source.read_text()), Dumper=_Apart, sort_keys=False)
    )
    *parents, last = path.split(".")
    node = config
    for key in parents:
        node = node[int(key) if isinstance(node, list) else key]
    node[last] = value
    return config


class _Apart(yaml.SafeDumper):
    def ignore_aliases(self, data):
        return True


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "configs").glob("*.yaml")), ids=lambda path: path.stem
)
def test_nothing_is_odd_about_the_packaged_configs(path):
    assert list(odd_transforms(yaml.safe_load(path.read_text()))) == []


def test_clustering_and_evaluation_prepare_images_differently():
    path = "Clustering.transform_ops.1.NormalizeImage"
    (remark,) = odd_transforms(changed(f"{path}.std", [1.0, 1.0, 1.0]))
    assert "Clustering.transform_ops differ from DataLoader.Eval.Query" in remark
    (remark,) = odd_transforms(
        changed("DataLoader.Eval.Gallery.dataset.transform_ops.0.ResizeImage.backend", "cv2")
    )
    assert "DataLoader.Eval.Gallery" in remark


def test_another_size_for_the_training_images():
    path = "DataLoader.Train.dataset.transform_ops.0.ResizeImage.size"
    (remark,) = odd_transforms(changed(path, [40, 96]))
    assert path.removesuffix(".0.ResizeImage.size") in remark
    assert "width 40" in remark and "width 48" in remark and "exchanged" not in remark


def test_width_and_height_exchanged():
    remarks = list(odd_transforms(changed("Global.image_shape", [3, 48, 96])))
    assert len(remarks) == 4 and all("exchanged" in remark for remark in remarks)
    (remark,) = odd_transforms(
        changed("DataLoader.Train.dataset.transform_ops.0.ResizeImage.size", [96, 48])
    )
    assert "DataLoader.Train.dataset" in remark and "exchanged" in remark


def test_people_that_lie(tmp_path):
    config = changed("Global.image_root", "x")
    del config["Global"]["image_shape"]
    for part in (config["Clustering"], *(p["dataset"] for p in _parts(config))):
        part["transform_ops"][0]["ResizeImage"]["size"] = [96, 48]
    remarks = list(odd_transforms(config))
    assert len(remarks) == 4 and all("people stand" in remark for remark in remarks)


def _parts(config):
    return [config["DataLoader"]["Train"], *config["DataLoader"]["Eval"].values()]


def test_a_run_says_it(lite_set, tmp_path):
    path = tmp_path / "exchanged.yaml"
    path.write_text(yaml.safe_dump(changed("Global.image_shape", [3, 48, 96])))
    engine_of(lite_overrides(lite_set, tmp_path), config=path)
    assert "exchanged? ResizeImage.size is [width, height]" in log_of(tmp_path)
