"""The commands on pictures and models: what they write, what they print, what they refuse."""

import errno
import os

import numpy as np
import pytest
import tifffile
from image_samples import PROFILE, TAG, pillow, stacked, tiff
from PIL import Image
from skimage import data
from test_priors import PHOTO, cosine_model

import refimpl as ri
from refimpl import cli, storage
from refimpl.images import read_image, write_image
from refimpl.restoration import evaluate, scores
from refimpl.training import library
from strategies import generator

EPS = 25 / 255
NOISE = generator(1).standard_normal((*PHOTO.shape, 3))[:40, :50]
TRUTH = np.stack([PHOTO, PHOTO[::-1], PHOTO**2], axis=-1)[:40, :50]
NOISY = np.clip(TRUTH + EPS * NOISE, 0, 1)
EIGHT = np.rint(255 * NOISY).astype(np.uint8)
SIXTEEN = np.rint(65535 * NOISY).astype(np.uint16)
ALPHA = generator(2).integers(0, 256, EIGHT.shape[:2], np.uint8)
GREY = np.ascontiguousarray(EIGHT[..., 0])
PSF = np.outer([1.0, 2, 1], [1, 2, 1]) / 16
GAPS = generator(4).random((48, 48)) < 0.3


def turned(pixels, orientation):
    """A JPEG that is to be turned."""
    exif = Image.Exif()
    exif[TAG["orientation"]] = orientation
    return pillow(pixels, "JPEG", quality=100, exif=exif)


PHOTOS = {  # name -> content
    "grey.png": pillow(GREY),
    "colour.png": pillow(EIGHT),
    "opacity.png": pillow(stacked(EIGHT, ALPHA)),
    "deep.tif": tiff(SIXTEEN, photometric="rgb"),
    "grey16.tif": tiff(np.ascontiguousarray(SIXTEEN[..., 0])),
    "float.tif": tiff(NOISY.astype(np.float32), photometric="rgb"),
    "turned.jpg": turned(EIGHT, 6),
    "profile.png": pillow(EIGHT, icc_profile=PROFILE),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the commands run, with a model and no models that ship."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(library, "MODELS", tmp_path / "none")
    cosine_model(noise_level=EPS, provenance={"data": "none", "seed": 0}).save("m.npz")
    cosine_model(3, noise_level=EPS).save("colour.npz")
    (tmp_path / "grey.png").write_bytes(PHOTOS["grey.png"])
    write_image("psf.tif", PSF)
    write_image("mask.png", generator(3).random(GREY.shape) < 0.2)
    return tmp_path


def run(text, code=0):
    assert cli.main(text.split()) == code


# Pictures


@pytest.mark.parametrize("model", ["tv", "m.npz"])
@pytest.mark.parametrize("name", PHOTOS)
def test_a_photograph_comes_back_cleaner_in_the_kind_it_came_in(name, model, folder, capsys):
    (folder / name).write_bytes(PHOTOS[name])
    out = f"out.{name.partition('.')[2].replace('jpg', 'png')}"
    run(f"denoise {name} --model {model} --noise-level 25/255 -o {out}")
    before, after = read_image(name), read_image(out)
    assert after.pixels.shape == before.pixels.shape and after.pixels.dtype == before.pixels.dtype
    assert after.profile == before.profile
    assert (after.alpha is None) == (before.alpha is None)
    if before.alpha is not None:
        np.testing.assert_array_equal(after.alpha, before.alpha)
    truth = np.rot90(TRUTH, -1) if name == "turned.jpg" else TRUTH
    truth = truth if before.pixels.ndim == 3 else truth[..., 0]
    assert quality(after.pixels, truth) > quality(before.pixels, truth) + 3
    assert f"{out}: written after " in capsys.readouterr().out


def quality(pixels, truth):
    return ri.psnr(
        pixels if pixels.dtype.kind == "f" else pixels / np.iinfo(pixels.dtype).max, truth
    )


@pytest.mark.parametrize("command", ["inpaint {} --mask mask.png", "deconvolve {} --psf psf.tif"])
def test_masks_and_psfs_are_read_from_pictures(command, folder):
    run(command.format("grey.png") + " --model m.npz --noise-level 0.1 -o out.png")
    K = {"inpaint": ri.inpaint, "deconvolve": ri.deconvolve}[command.split()[0]]
    beside = read_image(command.split()[-1]).pixels
    expected = K(GREY, beside, 0.1, model="m.npz")
    assert np.abs(255 * np.clip(expected, 0, 1) - read_image("out.png").pixels).max() <= 0.51


def test_the_noise_level_is_estimated_and_said_and_so_is_the_model(folder, capsys):
    run("denoise grey.png --model m.npz -o out.png")
    err = capsys.readouterr().err
    assert "noise_level is estimated as 0." in err and "denoise with TrainedModel(8 filters" in err


@pytest.mark.parametrize(
    ("text", "level"), [("0.1", 0.1), ("25/255", 25 / 255), ("0", 0), ("1", 1), ("1e-2", 0.01)]
)
def test_noise_levels_are_of_one_or_of_255(text, level):
    from refimpl.cli.pictures import noise_level

    assert noise_level(text) == level


@pytest.mark.parametrize("text", ["25", "-0.1", "nan", "x", "25/0", "1/2/3", "25/", "300/255"])
def test_other_noise_levels_are_refused(text, folder, capsys):
    with pytest.raises(SystemExit) as stop:
        run(f"denoise grey.png --noise-level={text} -o out.png")
    assert stop.value.code == 2
    assert "expected 0 to 1, where white is 1; for 8-bit pixels write it as 25/255" in (
        capsys.readouterr().err
    )


def gif(count):
    frames = [Image.fromarray(np.roll(GREY, n)) for n in range(count)]
    return pillow(frames[0], "GIF", save_all=True, append_images=frames[1:])


BAD = {  # what is wrong -> files, command, words
    "missing": ({}, "denoise no.png -o out.png", "no.png"),
    "unreadable": ({"x.png": b"no picture"}, "denoise x.png -o out.png", "x.png: cannot be read"),
    "empty": ({"x.png": b""}, "denoise x.png -o out.png", "x.png: cannot be read as an image"),
    "truncated": (
        {"x.png": PHOTOS["colour.png"][:500]}, "denoise x.png -o out.png", "x.png: cannot be read",
    ),
    "animated": ({"x.gif": gif(3)}, "denoise x.gif -o out.png", "x.gif: holds 3 frames"),
    "nan": (
        {"x.tif": tiff(np.where(NOISY > 0.5, np.nan, NOISY)[..., 0].astype("f"))},
        "denoise x.tif --noise-level 0.1 -o out.tif", "values are NaN or infinite",
    ),
    "of 255": (
        {"x.tif": tiff((255 * NOISY[..., 0]).astype("f"))},
        "denoise x.tif --noise-level 0.1 -o out.tif", "expected about 0 to 1; divide floats",
    ),
    "1 x 1": ({"x.png": pillow(GREY[:1, :1])}, "denoise x.png -o out.png", "pass noise_level"),
    "mask of another size": (
        {"x.png": pillow(GREY[1:])}, "inpaint grey.png --mask x.png -o out.png",
        r"mask: shape is (39, 50), the image is (40, 50)",
    ),
    "all missing": (
        {"x.png": pillow(np.full_like(GREY, 255))}, "inpaint grey.png --mask x.png -o out.png",
        "every pixel is missing",
    ),
    "mask in colour": (
        {"x.png": PHOTOS["colour.png"]}, "inpaint grey.png --mask x.png -o out.png",
        "x.png: is in colour, expected grey values",
    ),
    "psf of zeros": (
        {"x.png": pillow(np.zeros((3, 3), np.uint8))}, "deconvolve grey.png --psf x.png -o out.png",
        "x.png: psf: all its values are 0",
    ),
    "psf of even size": (
        {"x.png": pillow(np.ones((4, 3), np.uint8))}, "deconvolve grey.png --psf x.png -o out.png",
        "psf: shape is (4, 3), expected (h, w) with odd sides; pad an even side",
    ),
    "model of colour": (
        {}, "denoise grey.png --model colour.npz -o out.png",
        "act on 3 channels, the image has 1; take a model of grey images",
    ),
    "no model": ({}, "denoise grey.png --model best -o out.png", "'best' is no file, and not one"),
    "picture as a model": (
        {}, "denoise grey.png --model grey.png -o out.png", "not a complete npz file",
    ),
    "no kind of picture": ({}, "denoise grey.png -o out.gif", "a name that ends in .png"),
    "float to png in a folder's place": ({}, "denoise grey.png -o none/.", "ends in .png"),
    "empty folder": ({}, "evaluate none", "none"),
    "no photographs": ({}, "evaluate nothing", "nothing: has no image files"),
    "no such model": ({}, "show best", "'best' is no file"),
    "no kind of figure": ({}, "show m.npz -o out.docx", "docx"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", BAD)
def test_bad_input_is_one_line_and_leaves_no_file(wrong, folder, capsys):
    files, command, words = BAD[wrong]
    (folder / "nothing").mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    before = sorted(os.listdir())
    run(command, code=2)
    out, err = capsys.readouterr()
    last = err.splitlines()[-1]
    assert last.startswith("refimpl: error: ") and words in last and out == ""
    assert sorted(os.listdir()) == before


def test_a_huge_picture_is_refused_before_it_is_decoded(folder, capsys):
    from image_samples import png

    rows = [np.zeros(1, np.uint8)]
    (folder / "x.png").write_bytes(png(0, 8, rows, size=(20_000, 20_000)))
    run("denoise x.png -o out.png", code=2)
    said = "x.png: declares more than 357913940 pixels, expected at most 178956970; cut it into"
    assert said in capsys.readouterr().err


def test_constant_and_one_pixel_pictures_stay(folder):
    for shape in ((12, 12), (1, 1)):
        (folder / "x.png").write_bytes(pillow(np.full(shape, 77, np.uint8)))
        for model in ("tv", "m.npz"):
            run(f"denoise x.png --noise-level 0.1 --model {model} -o out.png")
            assert (read_image("out.png").pixels == 77).all()


def test_a_full_disk_is_one_line_and_the_old_picture_stays(folder, monkeypatch, capsys):
    (folder / "out.png").write_bytes(b"old")

    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(storage, "_write_through", full)
    run("denoise grey.png --noise-level 0.1 -o out.png", code=2)
    assert "No space left on device" in capsys.readouterr().err
    assert (folder / "out.png").read_bytes() == b"old"


def test_a_solve_that_does_not_converge_is_exit_code_one(folder, monkeypatch, capsys):
    from refimpl.restoration import priors

    monkeypatch.setattr(priors, "SETTLED", 1e-30)
    run("denoise grey.png --noise-level 0.1 --model m.npz -o out.png", code=1)
    assert "did not converge" in capsys.readouterr().err and not (folder / "out.png").exists()


# Models


def test_models_that_ship_are_listed(folder, monkeypatch, capsys):
    monkeypatch.setattr(library, "MODELS", folder)
    run("models")
    out = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in out] == ["colour", "m", "tv"]
    assert "8 filters of 1 × 3 × 3" in out[1]


@pytest.mark.parametrize("change", [lambda m: m, lambda m: m.untie()])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_model_is_drawn(change, channels, folder, capsys):
    records = ({"epoch": 0, "psnr_test": 20.0}, {"epoch": 1, "psnr_test": 21.0, "loss_test": 0.1})
    model = cosine_model(channels, noise_level=EPS, records=records, provenance={"seed": 3})
    change(model).save("drawn.npz")
    run("show drawn.npz")
    assert "seed: 3\ndrawn in drawn.png" in capsys.readouterr().out
    with Image.open("drawn.png") as picture:
        assert picture.size[0] > 800


def test_evaluation_gives_means_and_standard_errors_beside_total_variation(folder, capsys):
    (folder / "photos").mkdir()
    photos = [PHOTO[:48, :48], PHOTO[60:, 30:90], data.coins()[:50, :60] / 255]
    for n, photo in enumerate(photos):
        write_image(f"photos/{n}.png", photo)
    run("evaluate photos --model m.npz")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "3 photographs, noise level 0.09804 (25 of 255)"
    assert [line[:16].strip() for line in lines[2:]] == ["data", "total variation,", "model"]
    found = evaluate([np.rint(255 * u)[None] / 255 for u in photos], "m.npz")
    values = found.psnr["model"]
    error = values.std(ddof=1) / 3**0.5
    assert f"{values.mean():.2f} ± {error:.2f}" in lines[-1]
    assert (found.psnr["data"] < values).all() and (found.ssim["data"] < found.ssim["model"]).all()
    run("evaluate photos --model tv --noise-level 10/255")
    assert "(10 of 255)" in (out := capsys.readouterr().out) and "model" not in out


def test_total_variation_has_the_best_weight():
    truth = [PHOTO[None, :48, :48], PHOTO[None, 60:, 30:90]]
    given = [scores.degraded(u, EPS, generator(n)) for n, u in enumerate(truth)]

    def mean(images):
        return np.mean([ri.psnr(u, v) for u, v in zip(images, truth)])

    best = mean(scores.best_total_variation(given, truth))
    for factor in (0.7, 0.85, 1, 1.2, 1.4):
        others = [some.by(some.total_variation(factor))[0] for some in given]
        assert best >= mean(others) - 0.005


@pytest.mark.parametrize("options", [{"missing": 0.3}, {"missing": GAPS}, {"psf": PSF}])
def test_evaluation_of_gaps_and_blurs_is_that_of_the_three_functions(options, folder):
    truth = PHOTO[None, :48, :48]
    given, again = (np.random.default_rng(0).spawn(1)[0] for _ in range(2))
    given = scores.degraded(truth, 0.05, given, **options)
    y, m = given.y[0, 0], ri.load_model("m.npz")
    if "psf" in options:
        expected = ri.deconvolve(y, PSF, 0.05, model=m)
        clean = ri.Convolution(PSF, truth.shape).matvec(truth[None])
        assert np.array_equal(y, ri.add_noise(clean, 0.05, again)[0, 0])
    else:
        expected = ri.inpaint(y, given.missing, 0.05, model=m)
        assert given.missing.sum() == (options["missing"] * np.ones((48, 48))).sum().round()
        noisy = ri.add_noise(truth[None], 0.05, again)[0, 0]
        assert np.array_equal(y, np.where(given.missing, 0, noisy))
    found = evaluate([truth], m, 0.05, **options)
    assert found.psnr["model"][0] == ri.psnr(expected, truth[0])
    assert found.psnr["data"] < found.psnr["total variation, best weight"] < 60


def test_gaps_and_a_blur_together_are_refused():
    with pytest.raises(ValueError, match="given missing pixels and a psf, expected one"):
        evaluate([PHOTO[None]], "tv", 0.1, missing=0.3, psf=PSF)


def test_evaluate_takes_missing_pixels_and_a_psf_from_the_command_line(folder, capsys):
    (folder / "photos").mkdir()
    write_image("photos/a.png", PHOTO[:32, :32])
    for options in ("--missing 0.3", "--psf psf.tif"):
        run(f"evaluate photos --model m.npz --noise-level 0.05 {options}")
        assert "1 photograph, noise level 0.05" in capsys.readouterr().out


def test_deep_pictures_are_not_rounded_to_eight_bits(folder):
    tifffile.imwrite("x.tif", SIXTEEN, photometric="rgb")
    run("denoise x.tif --noise-level 0.002 --model tv -o out.tif")
    values = read_image("out.tif").pixels
    assert values.dtype == np.uint16 and (values % 257 != 0).any()
