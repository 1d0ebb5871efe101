import json
import shutil
from pathlib import Path

import pytest
import torch
from tiny import tiny_recipe

from sslcollapse.core.errors import RunError
from sslcollapse.recipe import resolve
from sslcollapse.runs import hub
from sslcollapse.runs.export import load_encoder, save_encoder
from sslcollapse.runs.hub import HubEncoder
from sslcollapse.training.build import build_domain, build_module


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> tuple[Path, object]:
    folder = tmp_path_factory.mktemp("run")
    recipe = resolve(tiny_recipe("hub", train=dict(steps=1), optim=dict(type="adamw", lr=1e-3)))
    domain = build_domain(recipe)
    domain.load()
    save_encoder(folder, build_module(recipe, domain).encoder, recipe, domain.in_shape, 1)
    return folder, domain.probe_set().views[0]


def same(one: torch.nn.Module, other: torch.nn.Module, view: object) -> bool:
    with torch.no_grad():
        return torch.equal(one(view), other(view))


def test_saving_and_loading_give_the_same_representations_and_files(exported, tmp_path):
    folder, view = exported
    encoder = HubEncoder.from_run(folder)
    encoder.save_pretrained(tmp_path / "saved")
    again = HubEncoder.from_pretrained(tmp_path / "saved")
    assert same(encoder, again, view)
    assert not again.training
    assert again.out_dim == encoder(view).shape[1]
    for name in ("encoder.json", "encoder.safetensors"):
        assert (tmp_path / "saved" / name).read_bytes() == (folder / name).read_bytes()


def test_what_was_saved_is_an_export_like_any_other(exported, tmp_path):
    folder, view = exported
    HubEncoder.from_run(folder).save_pretrained(tmp_path)
    encoder, description = load_encoder(tmp_path)
    assert same(encoder, HubEncoder.from_run(folder), view)
    assert description == json.loads((folder / "encoder.json").read_text())


def test_a_repository_is_downloaded_as_the_two_files_of_one_revision(exported, tmp_path, monkeypatch):
    folder, view = exported
    HubEncoder.from_run(folder).save_pretrained(tmp_path / "remote")
    asked = []

    def download(*, repo_id: str, filename: str, **where: object) -> str:
        asked.append((repo_id, filename, where["revision"]))
        cache = tmp_path / "cache"
        cache.mkdir(exist_ok=True)
        return shutil.copy(tmp_path / "remote" / filename, cache)

    monkeypatch.setattr(hub, "hf_hub_download", download)
    monkeypatch.setattr("huggingface_hub.hub_mixin.hf_hub_download", download)
    encoder = HubEncoder.from_pretrained("me/quickstart", revision="v1")
    assert same(encoder, HubEncoder.from_run(folder), view)
    files = [filename for _, filename, _ in asked]
    assert set(files) <= {"config.json", "encoder.json", "encoder.safetensors"}
    assert {"encoder.json", "encoder.safetensors"} <= set(files)
    assert {(repo, revision) for repo, _, revision in asked} == {("me/quickstart", "v1")}


def test_pushing_uploads_the_export(exported, monkeypatch):
    uploaded = []

    class Api:
        def __init__(self, token: object = None) -> None: ...

        def create_repo(self, repo_id: str, **_: object) -> object:
            return type("Url", (), {"repo_id": repo_id})()

        def upload_folder(self, *, folder_path: object, **_: object) -> None:
            uploaded.extend(path.name for path in Path(folder_path).iterdir())

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Api)
    HubEncoder.from_run(exported[0]).push_to_hub("me/quickstart")
    assert {"encoder.json", "encoder.safetensors", "README.md"} <= set(uploaded)


def test_a_folder_without_an_export_is_refused(tmp_path):
    with pytest.raises(RunError, match="no readable exported encoder"):
        HubEncoder.from_pretrained(tmp_path)
