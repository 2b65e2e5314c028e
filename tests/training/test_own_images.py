"""Images of one's own: how folders and files become examples, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import modular_manifolds as mm
from modular_manifolds.errors import DataError, SpecError
from modular_manifolds.specs.data import OwnImagesSpec
from modular_manifolds.training.augmentation import Augmentation
from modular_manifolds.training.data import DataSet, read_data, resolve_with_data
from modular_manifolds.training.own_images import read_own_images
from modular_manifolds.training.session import Session

Image = pytest.importorskip("PIL.Image", reason="the extra 'datasets' is not installed")

Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Writes an image file below `data`; its pixels are those given, or random grey ones of 8×8."""
    generator = np.random.default_rng(0)

    def write(name: str, pixels: Any = None, **options: Any) -> Path:
        file = tmp_path / "data" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if pixels is None:
            pixels = generator.integers(0, 256, (8, 8), dtype=np.uint8)
        image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
        image.save(file, **options)
        return file

    return write


@pytest.fixture
def folder(save: Save, tmp_path: Path) -> Path:
    """Two classes of five grey images."""
    for name in ("cat", "dog"):
        for number in range(5):
            save(f"{name}/{number}.png")
    return tmp_path / "data"


def read(folder: Path, **settings: Any) -> DataSet:
    return read_own_images(OwnImagesSpec(name="images", path=str(folder), **settings))


def plain(data: DataSet) -> torch.Tensor:
    """The pixels in [0, 1] of the training and then the test images, a row each."""
    return torch.cat([data.scale.undone(part.images) for part in (data.train, data.test)])


class TestFolders:
    def test_a_share_of_each_class_is_held_out_and_pixels_are_normalised(
        self, folder: Path
    ) -> None:
        data = read(folder)
        assert data.classes == ("cat", "dog")
        assert data.train.labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
        assert data.test.labels.tolist() == [0, 1]
        assert data.train.images.shape == (8, 64)
        assert float(data.train.images.mean()) == pytest.approx(0, abs=1e-5)
        assert float(data.train.images.std(correction=0)) == pytest.approx(1, abs=1e-4)
        files = [np.asarray(Image.open(each)) for each in sorted(folder.rglob("*.png"))]
        wanted = sorted((each.flatten() / 255).tolist() for each in files)
        back = sorted(plain(data).tolist())
        np.testing.assert_allclose(back, wanted, atol=1e-5)

    def test_the_written_spec_reads_the_same_again(self, folder: Path) -> None:
        data = read(folder)
        assert isinstance(data.spec, OwnImagesSpec)
        assert data.spec.shape == (1, 8, 8)
        again = read_own_images(data.spec)
        assert again.spec == data.spec
        assert torch.equal(again.train.images, data.train.images)
        assert torch.equal(again.test.images, data.test.images)

    @pytest.mark.parametrize("name", ["test", "val", "validation", "Valid"])
    def test_a_part_to_test_on_is_found(self, folder: Path, save: Save, name: str) -> None:
        folder.rename(folder.parent / "train")
        save(f"{name}/dog/0.png")
        (folder.parent / "train").rename(folder / "train")
        data = read(folder)
        assert (len(data.train), data.test.labels.tolist()) == (10, [1])

    def test_the_part_to_test_on_can_be_named(self, folder: Path, save: Save) -> None:
        folder.rename(folder.parent / "train")
        save("test/dog/0.png")
        save("extra/cat/0.png")
        (folder.parent / "train").rename(folder / "train")
        assert read(folder, test_part="extra").test.labels.tolist() == [0]
        with pytest.raises(DataError, match=r"data.test_part must be a part of .*, got 'other'"):
            read(folder, test_part="other")

    def test_files_of_the_system_are_passed_over(self, folder: Path) -> None:
        (folder / "cat" / ".DS_Store").write_bytes(b"x")
        (folder / "cat" / "Thumbs.db").write_bytes(b"x")
        (folder / ".git").mkdir()
        assert len(read(folder).train) == 8

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda f: (f / "emu").mkdir(), "emu must hold at least one image, got an empty fold"),
            (lambda f: (f / "0.png").write_bytes(b"x"), "0.png must lie in the folder of its cl"),
            (lambda f: (f / "cat" / "a.txt").write_bytes(b"x"), r"a.txt must be an image \(\.png"),
            (lambda f: (f / "cat" / "0.png").write_bytes(b""), "0.png must be an image, got an em"),
            (lambda f: (f / "cat" / "0.png").write_bytes(b"x"), "0.png must be an image that can"),
            (
                lambda f: (f / "cat" / "0.png").write_bytes(
                    (f / "cat" / "0.png").read_bytes()[:-30]
                ),
                "0.png must be an image that can be read",
            ),
            (lambda f: (f / "dog").rename(f.parent / "dog"), "must have at least two classes"),
            (
                lambda f: [each.unlink() for each in sorted((f / "cat").iterdir())[1:]],
                "must hold at least two images of the class cat",
            ),
        ],
    )
    def test_what_is_wrong_is_refused_by_its_name(
        self, folder: Path, change: Callable[[Path], object], message: str
    ) -> None:
        change(folder)
        with pytest.raises(DataError, match=message):
            read(folder)

    def test_a_damaged_byte_is_found(self, folder: Path) -> None:
        file = folder / "dog" / "3.png"
        raw = bytearray(file.read_bytes())
        # In the checksum of the pixels, behind which twelve bytes end the file.
        raw[-13] ^= 1
        file.write_bytes(raw)
        with pytest.raises(DataError, match=r"3\.png must be an image that can be read"):
            read(folder)

    def test_a_class_without_training_images_is_refused(self, folder: Path, save: Save) -> None:
        folder.rename(folder.parent / "train")
        save("val/emu/0.png")
        (folder.parent / "train").rename(folder / "train")
        with pytest.raises(DataError, match=r"val/emu/0.png must be of a class that has training"):
            read(folder)

    def test_an_empty_folder_no_folder_and_no_path_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="must hold a folder of images for each class"):
            read(tmp_path)
        with pytest.raises(DataError, match="data path must be a folder that exists"):
            read(tmp_path / "none")
        with pytest.raises(DataError, match="data path must be given for images"):
            read_data(OwnImagesSpec(name="images"))
        (tmp_path / "test" / "cat").mkdir(parents=True)
        with pytest.raises(DataError, match="must hold a folder train beside the folder test"):
            read(tmp_path)

    def test_other_images_than_the_runs_own_are_refused(self, folder: Path, save: Save) -> None:
        spec = read(folder).spec
        assert isinstance(spec, OwnImagesSpec)
        save("emu/0.png")
        save("emu/1.png")
        with pytest.raises(DataError, match=r"must have the classes that the run was started with"):
            read_own_images(spec)


class TestSizes:
    def test_differing_sizes_are_refused_by_the_names_of_two_files(
        self, folder: Path, save: Save
    ) -> None:
        save("dog/2.png", np.zeros((8, 9), np.uint8))
        with pytest.raises(DataError, match=r"cat/0.png of 8×8 pixels and .*dog/2.png of 8×9\."):
            read(folder)

    def test_images_are_resized_to_cover_a_square_and_cut_to_it(
        self, folder: Path, save: Save
    ) -> None:
        wide = np.tile(np.repeat(np.array([0, 255, 0], np.uint8), [4, 8, 4]), (8, 1))
        save("dog/2.png", wide)
        data = read(folder, size=4, mean=(0.0,), std=(1.0,))
        assert data.spec.sizes == (16, 2, (1, 4, 4))
        # The edges are smoothed with what lies beside them.
        middle = plain(data).view(-1, 4, 4)[:, :, 1:3].flatten(1)
        assert float(middle.amin(dim=1).max()) > 0.99


class TestSpec:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"std": [0.5]}, "data.std must have a number for each one of mean"),
            ({"mean": [0.5]}, "data.std must have a number for each one of mean"),
            ({"mean": [0.5], "std": [0.0]}, "data.std must be positive numbers"),
            ({"validation": 1}, "data.validation must be less than 1"),
            ({"sise": 4}, "data.sise must be a known key, got 'sise'. Did you mean 'size'"),
            ({"channels": 2}, "data.channels must be 1 or 3"),
        ],
    )
    def test_settings_are_checked(self, settings: dict[str, Any], message: str) -> None:
        with pytest.raises(SpecError, match=message):
            mm.RunSpec.model_validate({"data": {"name": "images", **settings}})

    def test_a_mean_for_each_channel_is_asked_for(self, folder: Path) -> None:
        with pytest.raises(DataError, match=r"data.mean must have a number for each of 1 channels"):
            read(folder, mean=(0.5, 0.5, 0.5), std=(1.0, 1.0, 1.0))

    def test_the_network_comes_from_the_data(self, folder: Path) -> None:
        run = mm.RunSpec(data=OwnImagesSpec(name="images", path=str(folder)))
        small = resolve_with_data(run, read_data(run.data))
        assert small.network is not None
        assert [tuple(p.shape) for p in small.network.build().parameters()][::2] == [
            (128, 64),
            (2, 64),
        ]
        assert (small.optimizer.lr, small.batch_size) == (0.1, 8)
        large = resolve_with_data(run.override(["data.size=16"]), read(folder, size=16))
        assert large.optimizer.lr == 1.0
        assert "conv2d" in large.to_yaml()
        assert mm.RunSpec.from_yaml(large.to_yaml()).resolved() == large
        with pytest.raises(SpecError, match=r"model.name must be given for images whose size"):
            run.override(["model.width=3"])


class TestAugmentation:
    def test_every_change_is_the_one_that_its_number_says(self) -> None:
        change = Augmentation((1, 2, 3), flip=True, crop=1)
        image = torch.arange(1.0, 7.0).view(1, 6)
        assert change.variants == 18
        found = {
            tuple(change.apply(image, torch.tensor([number]))[0].tolist()) for number in range(18)
        }
        assert len(found) == 18
        centre = 4
        assert torch.equal(change.apply(image, torch.tensor([centre])), image)
        mirrored = change.apply(image, torch.tensor([9 + centre])).view(2, 3)
        assert torch.equal(mirrored, image.view(2, 3).flip(1))
        down = change.apply(image, torch.tensor([1])).view(2, 3)
        assert down.tolist() == [[0, 0, 0], [1, 2, 3]]

    def test_only_training_batches_change_and_they_repeat(self, folder: Path) -> None:
        data = read(folder, flip=True, crop=2)
        run = resolve_with_data(mm.RunSpec(data=data.spec).override(["steps=4"]), data)
        sessions = [Session(run, data) for _ in range(2)]
        assert sessions[0].advance(4) == sessions[1].advance(4)
        (images, labels) = next(iter(data.train_sample.batches(99)))
        assert torch.equal(images, read(folder).train.images)
        drawn = data.train.draw_order(torch.Generator().manual_seed(0))
        assert sorted((drawn % 8).tolist()) == list(range(8))
        changed, same = data.train.take(drawn)
        assert torch.equal(same, labels[drawn % 8])
        assert not torch.equal(changed, images[drawn % 8])
