# SPDX-License-Identifier: Apache-2.0
"""Weights by name, from a server on this machine: what PaddleClas itself writes, and every way in
which a transfer can fail."""

import hashlib
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import paddle
import pytest

import ppcls_ise
from ppcls_ise import compat
from ppcls_ise.errors import WeightsError
from ppcls_ise.weights import loading
from ppcls_ise.weights import released as download_module
from ppcls_ise.weights.loading import load_into, read_state, weight_path, write_state
from ppcls_ise.weights.released import RELEASED, Released, cache_folder


class Server:
    """Serves one file under every path; the attributes say how well."""

    def __init__(self) -> None:
        self.content = b""
        self.tag: str | None = '"v1"'
        self.date: str | None = None
        self.ranges = True
        self.length = True
        self.status = 200
        self.break_after: list[int] = []  # bytes of each of the next answers
        self.wrong_range = False
        self.requests: list[str | None] = []
        self.sent = 0
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/dygraph"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        wanted = handler.headers.get("Range")
        self.requests.append(wanted)
        if self.status != 200:
            handler.send_error(self.status)
            return
        start, total = 0, len(self.content)
        unchanged = handler.headers.get("If-Range") in (None, self.tag, self.date)
        if wanted and self.ranges and unchanged:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
            if start >= total:
                handler.send_response(416)
                handler.send_header("Content-Range", f"bytes */{total}")
                handler.end_headers()
                return
            handler.send_response(206)
            shown = start + self.wrong_range
            handler.send_header("Content-Range", f"bytes {shown}-{total - 1}/{total}")
        else:
            handler.send_response(200)
        for name, value in (("ETag", self.tag), ("Last-Modified", self.date)):
            if value:
                handler.send_header(name, value)
        if self.length:
            handler.send_header("Content-Length", str(total - start))
        handler.end_headers()
        stop = start + self.break_after.pop(0) if self.break_after else total
        self.sent += len(self.content[start:stop])
        handler.wfile.write(self.content[start:stop])


@pytest.fixture
def server(tmp_path, monkeypatch):
    server = Server()
    for name, released in RELEASED.items():
        file = released.url.rsplit("/", 1)[-1]
        monkeypatch.setitem(RELEASED, name, Released(f"{server.url}/{file}"))
    monkeypatch.setenv("PPCLS_ISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download_module, "_PAUSES", (0.0, 0.0))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.chdir(tmp_path)
    yield server
    server.close()


def released_model(*, neck: str = "BNNeck") -> paddle.nn.Layer:
    """The network of PaddleClas's ResNet50_UReID_infer.yaml."""
    ppcls_ise.register()
    compat.load("ppcls.utils.logger").init_logger()  # PaddleClas logs while it builds and saves
    return compat.load("ppcls.arch").RecModel(
        Backbone={"name": "ResNet50_last_stage_stride1", "pretrained": False},
        BackboneStopLayer={"name": "avg_pool"},
        Neck={"name": neck, "num_features": 2048},
        Head={"name": "FC", "embedding_size": 2048, "class_num": 751},
    )


@pytest.fixture(scope="session")
def published(tmp_path_factory) -> bytes:
    """A file of the published structure, written by PaddleClas itself."""
    folder = tmp_path_factory.mktemp("published")
    paddle.seed(3)
    model = released_model()
    assert len(model.state_dict()) == 271
    optimizer = paddle.optimizer.SGD(0.1, parameters=model.parameters())
    save_load = compat.load("ppcls.utils.save_load")
    save_load.save_model(
        model,
        [optimizer],
        {"metric": 0.5, "epoch": 1},
        str(folder),
        model_name="RecModel",
        prefix="latest",
    )
    return next(folder.rglob("latest.pdparams")).read_bytes()


def cached() -> list[str]:
    return sorted(p.name for p in cache_folder().iterdir() if p.suffix != ".lock")


FILE = "ISE_M_model.pdparams"
COMPLETE = [FILE, f"{FILE}.sha256"]


def test_the_published_addresses():
    """As on PaddleClas's page on ISE; no checksum is published there, and none is made up."""
    page = "https://paddle-imagenet-models-name.bj.bcebos.com/dygraph"
    assert {name: (r.url, r.sha256) for name, r in RELEASED.items()} == {
        "ISE_M": (f"{page}/ISE_M_model.pdparams", None),
        "ISE_MS": (f"{page}/ISE_MS_model.pdparams", None),
    }


def test_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("PPCLS_ISE_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("PPCLS_ISE_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "ppcls_ise"


@pytest.mark.parametrize("name", ["ISE_M", "ISE_MS"])
def test_a_name_is_downloaded_once_and_fits_the_plugins_model(server, published, name):
    server.content = published
    path = weight_path(name)
    assert path == cache_folder() / f"{name}_model.pdparams"
    assert path.read_bytes() == published and len(server.requests) == 1
    assert weight_path(name) == path and len(server.requests) == 1
    note = path.with_name(f"{path.name}.sha256").read_text()
    assert note == f"{hashlib.sha256(published).hexdigest()}  {path.name}\n"
    assert cached() == [path.name, f"{path.name}.sha256"]

    model = released_model()
    del model.head
    report = load_into(model, read_state(path), source=str(path))
    assert len(report.loaded) == 269 and not report.missing and not report.mismatched
    assert report.unexpected == ["head.fc.weight", "head.fc.bias"]
    expected = paddle.load(str(path), return_numpy=True)
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), expected[key])


def test_the_neck_of_the_plugin_takes_them_too(server, published):
    server.content = published
    model = released_model(neck="ReIDNeck")
    report = load_into(model, read_state(weight_path("ISE_M")), source="ISE_M")
    assert len(report.loaded) == 271 and str(report) == "271 tensors loaded"


def test_a_local_file_of_that_name_wins(server, published):
    Path("ISE_M.pdparams").write_bytes(b"")
    assert weight_path("ISE_M") == Path("ISE_M.pdparams")
    Path("ISE_M").write_bytes(b"")
    assert weight_path("ISE_M") == Path("ISE_M")
    assert not server.requests


def test_names_are_exact(server):
    Path("ISE_MS").mkdir()  # a folder is no file of weights
    for name in ("ise_m", "ISE_m", "ISE_M ", "ISE", "ISE_M_model", "http://host/ISE_M"):
        with pytest.raises(WeightsError, match=r"released weights \(ISE_M, ISE_MS\)"):
            weight_path(name)
    assert not server.requests


def test_an_address_is_downloaded_once_and_never_taken_for_another(server, monkeypatch):
    monkeypatch.setattr(loading, "_ADDRESS", "http://")
    one, two = ({"weight": np.full(2, value, np.float32)} for value in (1, 2))
    for place, state in (("a", one), ("b", two), ("a", one)):
        write_state("w.pdparams", state)
        server.content = Path("w.pdparams").read_bytes()
        path = weight_path(f"{server.url}/{place}/w.pdparams", key="Arch.Backbone.pretrained")
        assert read_state(path)["weight"].tolist() == state["weight"].tolist()
    assert len(server.requests) == 2
    server.status = 404
    with pytest.raises(WeightsError, match=r"give its path: -o Arch\.Backbone\.pretrained=FILE\."):
        weight_path(f"{server.url}/c/w.pdparams", key="Arch.Backbone.pretrained")


def test_a_file_put_into_the_cache_by_hand_is_checked_and_used(server, published):
    cache_folder().mkdir()
    (cache_folder() / FILE).write_bytes(published)
    assert weight_path("ISE_M").name == FILE
    assert not server.requests and cached() == COMPLETE
    (cache_folder() / FILE).write_bytes(published[:-100])
    with pytest.raises(WeightsError, match="SHA-256"):
        weight_path("ISE_M")
    for name in COMPLETE:
        (cache_folder() / name).unlink()
    (cache_folder() / FILE).write_bytes(published[:-100])
    with pytest.raises(WeightsError, match="truncated"):
        weight_path("ISE_M")


def test_a_broken_transfer_is_continued_at_once(server, published):
    server.content = published
    server.break_after = [1_000_000, 2_000_000]
    assert weight_path("ISE_M").read_bytes() == published
    assert server.requests == [None, "bytes=1000000-", "bytes=3000000-"]
    assert server.sent == len(published) and cached() == COMPLETE


def test_a_broken_transfer_is_continued_by_the_next_run(server, published):
    server.content = published
    server.break_after = [1_000_000, 0, 0]
    with pytest.raises(WeightsError, match="1,000,000 of .* bytes received.*Run again"):
        weight_path("ISE_M")
    assert not (cache_folder() / FILE).exists()
    server.requests.clear()
    assert weight_path("ISE_M").read_bytes() == published
    assert server.requests == ["bytes=1000000-"] and cached() == COMPLETE


def test_a_complete_part_needs_no_transfer(server, published):
    server.content = published
    cache_folder().mkdir()
    (cache_folder() / f"{FILE}.part").write_bytes(published)
    (cache_folder() / f"{FILE}.part.version").write_text('"v1"')
    assert weight_path("ISE_M").read_bytes() == published
    assert server.sent == 0 and cached() == COMPLETE


@pytest.mark.parametrize("case", ["changed", "longer", "no range", "no version", "wrong range"])
def test_a_part_that_cannot_be_continued_is_dropped(server, published, case):
    server.content = published
    cache_folder().mkdir()
    part = cache_folder() / f"{FILE}.part"
    part.write_bytes(bytes(len(published) + 5) if case == "longer" else b"old" * 1000)
    version = part.with_name(f"{part.name}.version")
    if case != "no version":
        version.write_text('"v0"' if case == "changed" else '"v1"')
    server.ranges = case != "no range"
    server.wrong_range = case == "wrong range"
    assert weight_path("ISE_M").read_bytes() == published
    assert cached() == COMPLETE


@pytest.mark.parametrize(
    ("tag", "date", "resumed"),
    [
        (None, "Wed, 08 Jun 2022 08:00:00 GMT", True),
        ('W/"weak"', "Wed, 08 Jun 2022 08:00:00 GMT", True),
        ('W/"weak"', None, False),
        (None, None, False),
    ],
)
def test_without_a_strong_tag(server, published, tag, date, resumed):
    server.content, server.tag, server.date = published, tag, date
    server.break_after = [500_000]
    assert weight_path("ISE_M").read_bytes() == published
    assert server.requests == [None, "bytes=500000-" if resumed else None]


def test_a_server_without_ranges_and_one_without_a_length(server, published):
    server.content, server.ranges = published, False
    server.break_after = [500_000]
    assert weight_path("ISE_M").read_bytes() == published
    server.length, server.tag = False, None
    assert weight_path("ISE_MS").read_bytes() == published
    (cache_folder() / FILE).unlink()
    (cache_folder() / f"{FILE}.sha256").unlink()
    server.break_after = [500_000]  # nothing tells that this is not all, but the content
    with pytest.raises(WeightsError, match="truncated"):
        weight_path("ISE_M")
    assert FILE not in cached() and f"{FILE}.part" not in cached()


def test_a_wrong_checksum(server, published, monkeypatch):
    server.content = published
    good = hashlib.sha256(published).hexdigest()
    for pinned, fits in ((good, True), ("0" * 64, False)):
        monkeypatch.setitem(RELEASED, "ISE_MS", Released(RELEASED["ISE_MS"].url, pinned))
        if fits:
            assert weight_path("ISE_MS").is_file()
            for path in cache_folder().iterdir():
                path.unlink()
        else:
            with pytest.raises(WeightsError, match=f"SHA-256 {good} instead of 0000"):
                weight_path("ISE_MS")
            assert cached() == []


def test_a_note_pins_the_download(server, published):
    server.content = published
    cache_folder().mkdir()
    note = cache_folder() / f"{FILE}.sha256"
    note.write_text("F" * 64)
    with pytest.raises(WeightsError, match="instead of ffff"):
        weight_path("ISE_M")
    assert cached() == [note.name]
    note.write_text("not a checksum")
    with pytest.raises(WeightsError, match="does not begin with a SHA-256"):
        weight_path("ISE_M")
    note.write_text(hashlib.sha256(published).hexdigest().upper())
    assert weight_path("ISE_M").is_file()


def test_a_file_of_another_structure_is_not_kept(server, tmp_path):
    model = released_model()
    state = {name: value for name, value in model.state_dict().items() if "blocks.7" not in name}
    paddle.save(state, str(tmp_path / "other.pdparams"))
    for content, word in (
        ((tmp_path / "other.pdparams").read_bytes(), r"missing \(backbone\.blocks\.7\.conv0"),
        (b"<html>Sign in to this network</html>", "instruction"),
        (b"\x80\x04cos\nsystem\n.", r"os\.system"),
        (b"", "ends"),
    ):
        server.content = content
        with pytest.raises(WeightsError, match=word):
            weight_path("ISE_M")
        assert cached() == []


def test_statuses(server, published):
    server.content = published
    for status, requests in ((404, 1), (403, 1), (500, 3), (503, 3)):
        server.status = status
        server.requests.clear()
        with pytest.raises(WeightsError, match=f"HTTP status {status}.*copy it to .*{FILE}"):
            weight_path("ISE_M")
        assert len(server.requests) == requests and cached() == []


def test_no_network(server):
    server.close()
    with pytest.raises(WeightsError) as error:
        weight_path("ISE_M")
    for word in (RELEASED["ISE_M"].url, "refused", str(cache_folder() / FILE), "its path"):
        assert word in str(error.value)


def test_an_endless_answer(server, monkeypatch):
    monkeypatch.setattr(download_module, "_LIMIT", 100_000)
    server.content = bytes(300_000)
    for length in (True, False):
        server.length = length
        with pytest.raises(WeightsError, match="bytes"):
            weight_path("ISE_M")
        assert cached() == []


def test_a_cache_that_cannot_be_written(server, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PPCLS_ISE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(WeightsError, match="PPCLS_ISE_CACHE"):
        weight_path("ISE_M")


def test_those_who_ask_together_download_once(server, published):
    server.content = published
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(weight_path, ["ISE_M"] * 4))
    assert set(paths) == {cache_folder() / FILE} and len(server.requests) == 1


def test_the_engine_takes_the_name(server, published, lite_set, tmp_path):
    from ppcls_ise.config.overrides import get_config
    from ppcls_ise.engine.engine import UnsupervisedEngine

    server.content = published
    ppcls_ise.register()
    config = Path(__file__).resolve().parents[2] / "configs" / "ISE_market_infer.yaml"
    overrides = [
        f"Global.image_root={lite_set}",
        f"Global.output_dir={tmp_path / 'run'}",
        "Global.device=cpu",
        "Global.pretrained_model=ISE_M",
    ]
    engine = UnsupervisedEngine(get_config(str(config), overrides), mode="eval")
    assert engine.has_pretrained_weights
    expected = read_state(cache_folder() / FILE)["backbone.stem.0.conv.weight"]
    own = engine.plain_model.state_dict()["backbone.stem.0.conv.weight"]
    np.testing.assert_array_equal(own.numpy(), expected)
    log = "".join(p.read_text() for p in (tmp_path / "run").rglob("eval.log"))
    assert "269 tensors loaded, 2 left out (head.fc.weight, head.fc.bias)" in log


def test_what_paddleclas_downloads_is_pinned_by_its_checksum(server, tmp_path, monkeypatch):
    """ImageNet weights: into PaddleClas's own folder, read without running anything, noted."""
    ppcls_ise.register()
    monkeypatch.setattr(compat.load("ppcls.utils.download"), "WEIGHTS_HOME", str(tmp_path))
    save_load = compat.load("ppcls.utils.save_load")
    layer = paddle.nn.Linear(2, 3)
    paddle.save(layer.state_dict(), str(tmp_path / "made"))
    server.content = (tmp_path / "made").read_bytes()
    path = save_load.get_weights_path_from_url(f"{server.url}/net_pretrained.pdparams")
    assert path == str(tmp_path / "net_pretrained.pdparams")
    note = Path(f"{path}.sha256").read_text()
    assert note.split()[0] == hashlib.sha256(server.content).hexdigest()
    Path(path).write_bytes(server.content[:-1])
    with pytest.raises(WeightsError, match="has the SHA-256"):
        save_load.get_weights_path_from_url(f"{server.url}/net_pretrained.pdparams")
    server.content = b"cos\nsystem\n(Vfalse\ntR."
    with pytest.raises(WeightsError, match="safe"):
        save_load.get_weights_path_from_url(f"{server.url}/other.pdparams")
    assert not (tmp_path / "other.pdparams").exists()
