"""Augmentation against SciPy, colorsys, Pillow and loops in NumPy."""

import colorsys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import sklearn.datasets
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from labelfx.data import augment
from labelfx.loop.mesh import make_mesh, on_every_device, split_rows

GREY = (6, 9, 9, 1)
RGB = (6, 10, 8, 3)
RANDAUGMENT = dict(padding=2, flip=True, operations=2, magnitude=1.0, probability=0.5, cutout=0.3)
PRESETS = {
    "identity": (augment.identity(), RGB),
    "crop_flip": (augment.crop_flip(padding=2, flip=True), RGB),
    "simclr": (augment.simclr(min_scale=0.2, flip=True, jitter_strength=1.0, grayscale=0.2, blur=0.5), RGB),
    "small_grey": (augment.small_grey(min_scale=0.5, max_rotation=20.0, jitter_strength=0.5, cutout=0.3), GREY),
    "randaugment": (augment.randaugment(**RANDAUGMENT), RGB),
    "randaugment_grey": (augment.randaugment(**RANDAUGMENT), GREY),
}


def pixels(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def floats(shape, seed=0):
    return pixels(shape, seed).astype(np.float32) / np.float32(255)


def close(got, want, atol=2e-6):
    np.testing.assert_allclose(np.asarray(got), np.asarray(want), rtol=0, atol=atol)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_keep_shape_range_and_randomness(name):
    preset, shape = PRESETS[name]
    images, rng = pixels(shape), jax.random.key(3)
    apply = jax.jit(preset)
    views = apply(rng, images)
    assert views.shape == shape and views.dtype == jnp.float32
    assert views.min() >= 0 and views.max() <= 1
    # Neither the size of the batch nor the dtype of the images changes a row.
    close(apply(rng, floats(shape)[:2]), views[:2])
    if name == "identity":
        close(views, floats(shape))
        return
    assert np.abs(apply(jax.random.key(4), images) - views).max() > 0.1
    rows = apply(rng, np.repeat(images[:1], shape[0], 0))
    assert len(np.unique(np.asarray(rows).reshape(shape[0], -1), axis=0)) > 1  # each row draws for itself


def test_a_row_drawn_twice_is_augmented_twice_and_by_its_place_in_the_whole_batch():
    """The same on one device and on eight, where a device's share would begin at place 0 again."""
    preset, (_, *shape) = PRESETS["small_grey"]
    images, rng, mesh = np.repeat(pixels((1, *shape)), 16, 0), jax.random.key(6), make_mesh(8, 1)
    apply = jax.jit(preset)
    shared = apply(jax.device_put(rng, on_every_device(mesh)), jax.device_put(images, split_rows(mesh)))
    assert [len(shard.data) for shard in shared.addressable_shards] == [2] * 8
    close(shared, apply(rng, images), 1e-5)
    assert len(np.unique(np.asarray(shared).reshape(16, -1), axis=0)) == 16


def test_noise_is_gaussian_and_each_row_draws_for_itself():
    images, rng = np.full((4, 32, 32, 3), 51, np.uint8), jax.random.key(0)
    apply = jax.jit(augment.noise(scale=0.5))
    added = np.asarray(apply(rng, images)) - np.float32(0.2)
    np.testing.assert_allclose(added.mean((1, 2, 3)), 0, atol=0.04)
    np.testing.assert_allclose(added.std((1, 2, 3)), 0.5, atol=0.02)
    assert np.abs(np.corrcoef(added.reshape(4, -1)) - np.eye(4)).max() < 0.08
    close(apply(rng, images[:2]), apply(rng, images)[:2])


def test_jit_changes_no_pixel():
    preset, shape = PRESETS["small_grey"]
    images, rng = jnp.asarray(pixels(shape)), jax.random.key(5)
    close(preset(rng, images), jax.jit(preset)(rng, images), 1e-5)


def test_float64_images_stay_float64():
    with jax.enable_x64(True):
        for preset, shape in PRESETS.values():
            images = jnp.asarray(pixels(shape) / 255)
            assert jax.eval_shape(preset, jax.random.key(0), images).dtype == jnp.float64


def test_wrong_images_are_named():
    with pytest.raises(TypeError, match="must be uint8 or float, or int32 token ids, got int8"):
        augment.to_float(jnp.zeros((1, 4, 4, 1), jnp.int8))
    with pytest.raises(ValueError, match="simclr takes RGB images"):
        PRESETS["simclr"][0](jax.random.key(0), pixels(GREY))


def bilinear(image, y, x):
    """One pixel with clamped coordinates, as a loop over its four neighbours."""
    y, x = np.clip(y, 0, image.shape[0] - 1), np.clip(x, 0, image.shape[1] - 1)
    total = np.zeros(image.shape[-1])
    for i in range(image.shape[0]):
        for j in range(image.shape[1]):
            total += max(0, 1 - abs(y - i)) * max(0, 1 - abs(x - j)) * image[i, j]
    return total


def test_resized_crop_samples_pixel_centres():
    image = floats(RGB)[0]
    rows, columns, _ = image.shape
    crop = jax.jit(augment.resized_crop)
    close(crop(image, 0.0, 0.0, float(rows), float(columns)), image)
    top, left, height, width = 1.7, 0.4, 6.2, 5.5
    expected = np.zeros(image.shape)
    for i in range(rows):
        for j in range(columns):
            y, x = top + (i + 0.5) * height / rows - 0.5, left + (j + 0.5) * width / columns - 0.5
            expected[i, j] = bilinear(image, y, x)
    close(crop(image, top, left, height, width), expected)


def test_a_crop_is_shrunk_as_by_pillow():
    image = floats((40, 30, 3))
    crop = jax.jit(partial(augment.resized_crop, shape=(8, 9)))
    # All of it; a part; one that is shrunk down and stretched across, at the edge; one of fewer pixels than its result.
    for top, left, height, width in (
        (0, 0, 40, 30),
        (3.3, 5.7, 30.2, 20.1),
        (20.0, 24.0, 20.0, 6.0),
        (9.5, 1.2, 6.0, 5.0),
    ):
        box, resample = (left, top, left + width, top + height), Image.Resampling.BILINEAR
        expected = [Image.fromarray(image[..., c]).resize((9, 8), resample, box) for c in range(3)]
        close(crop(image, top, left, height, width), np.stack([np.asarray(each) for each in expected], -1))


def test_views_of_simclr_resized_are_of_its_size_and_else_those_of_simclr():
    keys = dict(min_scale=0.2, flip=True, jitter_strength=1.0, grayscale=0.2, blur=0.5)
    images, rng = pixels((6, 8, 8, 3)), jax.random.key(3)
    resized = jax.jit(augment.simclr_resized(size=8, **keys))
    close(resized(rng, images), jax.jit(augment.simclr(**keys))(rng, images))
    assert resized(rng, pixels((6, 12, 16, 3))).shape == (6, 8, 8, 3)
    with pytest.raises(ValueError, match="simclr takes RGB images"):
        resized(rng, pixels(GREY))


def test_rotate():
    image = floats(GREY)[0]
    rotate = jax.jit(augment.rotate)
    close(rotate(image, 0.0), image)
    close(rotate(image, 90.0), np.rot90(image), 1e-5)
    wide = floats(RGB)[0]
    close(rotate(wide, 180.0), wide[::-1, ::-1], 1e-5)
    expected = scipy.ndimage.rotate(image[..., 0].astype(float), 17.0, reshape=False, order=1, mode="nearest")
    close(rotate(image, 17.0)[..., 0], expected, 1e-5)


def test_gaussian_blur_is_scipys_with_the_border_rescaled():
    image = floats(RGB)[0]
    blur = partial(scipy.ndimage.gaussian_filter, sigma=(1.3, 1.3, 0), mode="constant", truncate=20)
    expected = blur(image.astype(float)) / blur(np.ones(image.shape))
    close(jax.jit(augment.gaussian_blur)(image, 1.3), expected)


def test_hue_is_colorsys():
    image = floats(RGB)[0]
    image[0, :4] = [[0.5, 0.5, 0.5], [0, 0, 0], [1, 1, 1], [1, 0, 1]]  # no hue, black, white, equal maxima
    turn = jax.jit(augment.turn_hue)
    for turns in (0.0, 0.15, -0.2):
        expected = np.zeros(image.shape)
        for i, j in np.ndindex(image.shape[:2]):
            hue, saturation, value = colorsys.rgb_to_hsv(*image[i, j].astype(float))
            expected[i, j] = colorsys.hsv_to_rgb((hue + turns) % 1, saturation, value)
        close(turn(image, turns), expected)


def test_luminance_and_blend():
    image = floats(RGB)[0]
    expected = 0.299 * image[..., :1] + 0.587 * image[..., 1:2] + 0.114 * image[..., 2:]
    close(augment.luminance(image), expected)
    close(augment.luminance(image[..., :1]), image[..., :1])
    close(augment.blend(jnp.zeros_like(image), image, 1.5), np.minimum(1.5 * image, 1))
    close(augment.blend(expected, image, 0.0), np.broadcast_to(expected, image.shape))


def test_jitter_of_a_flat_grey_image_is_its_brightness():
    # Contrast, saturation and hue leave it alone, so a pixel tells the brightness factor.
    image = jnp.full((4, 4, 3), 0.5)
    jitter = jax.jit(jax.vmap(lambda rng: augment.random_jitter(rng, image, 0.5)))
    factors = np.asarray(jitter(jax.random.split(jax.random.key(0), 1000)))[:, 0, 0, 0] / 0.5
    assert factors.min() > 0.6 - 1e-5 and factors.max() < 1.4 + 1e-5
    assert abs(factors.mean() - 1) < 4 * 0.8 / np.sqrt(12 * 1000) and abs(factors.std() - 0.8 / np.sqrt(12)) < 0.02
    assert len(np.unique(factors)) > 900


def draws(change, count=2000, image=None):
    image = floats((1, 8, 8, 3))[0] if image is None else image
    return np.asarray(jax.jit(jax.vmap(lambda rng: change(rng, image)))(jax.random.split(jax.random.key(1), count)))


def test_probabilities():
    image = floats((1, 8, 8, 3))[0]
    for change, probability in (
        (augment.random_flip, 0.5),
        (lambda rng, image: augment.sometimes(rng, 0.2, image, lambda _: image[:, ::-1]), 0.2),
    ):
        views = draws(change)
        flipped = (views == image[:, ::-1]).all((1, 2, 3))
        assert (flipped | (views == image).all((1, 2, 3))).all()
        assert abs(flipped.mean() - probability) < 4 * np.sqrt(probability * (1 - probability) / len(views))


def test_simclr_applies_grayscale_and_jitter_as_often_as_asked():
    images = np.broadcast_to(np.float32([0.8, 0.4, 0.2]), (2000, 4, 4, 3))
    preset = augment.simclr(min_scale=0.5, flip=False, jitter_strength=0.5, grayscale=0.3, blur=0.0)
    views = np.asarray(jax.jit(preset)(jax.random.key(2), images))
    grey = np.ptp(views, axis=-1).max((1, 2)) < 1e-6
    assert abs(grey.mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 2000)
    untouched = np.abs(views - images).max((1, 2, 3)) < 1e-5
    assert abs(untouched.mean() - 0.2 * 0.7) < 4 * np.sqrt(0.14 * 0.86 / 2000)


def test_shift_draws_every_window_of_the_reflected_image():
    image = floats((1, 5, 6, 1))[0]
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode="reflect")
    windows = {padded[i : i + 5, j : j + 6].tobytes(): (i, j) for i in range(5) for j in range(5)}
    views = draws(lambda rng, image: augment.random_shift(rng, image, 2), 1000, image)
    counts = np.zeros((5, 5))
    for view in views:
        counts[windows[view.tobytes()]] += 1
    assert counts.min() > 40 - 4 * np.sqrt(40) and counts.max() < 40 + 4 * np.sqrt(40)


def test_random_resized_crop_covers_the_asked_area():
    # On a ramp of coordinates, the spread of the values is the size of the box.
    size, min_scale = 32, 0.25
    ramp = np.linspace(0.5, size - 0.5, size, dtype=np.float32)
    image = np.stack(np.meshgrid(ramp, ramp, indexing="ij"), -1)
    views = draws(lambda rng, image: augment.random_resized_crop(rng, image, min_scale), 1000, image)
    slope_y = (views[:, 20, 0, 0] - views[:, 12, 0, 0]) / 8
    slope_x = (views[:, 0, 20, 1] - views[:, 0, 12, 1]) / 8
    area, ratio = slope_y * slope_x, slope_x / slope_y
    assert 0.25 - 1e-4 < area.min() < 0.27 and 0.9 < area.max() < 1 + 1e-4
    assert 3 / 4 - 1e-3 < ratio.min() < 0.78 and 1.28 < ratio.max() < 4 / 3 + 1e-3
    centre = views[:, 15:17, 15:17, 0].mean((1, 2))
    assert abs(centre.mean() - size / 2) < 4 * centre.std() / np.sqrt(1000)
    assert centre.std() > 2


def torchvision_box(rng, rows, columns, min_scale):
    """(top, left, height, width) of RandomResizedCrop.get_params with its default ratio, without rounding to pixels."""
    for _ in range(10):
        area = rows * columns * rng.uniform(min_scale, 1)
        ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        height, width = np.sqrt(area / ratio), np.sqrt(area * ratio)
        if height <= rows and width <= columns:
            return rng.uniform(0, rows - height), rng.uniform(0, columns - width), height, width
    if columns / rows < 3 / 4:
        height, width = columns / (3 / 4), columns
    elif columns / rows > 4 / 3:
        height, width = rows, rows * (4 / 3)
    else:
        height, width = rows, columns
    return (rows - height) / 2, (columns - width) / 2, height, width


@pytest.mark.parametrize(("shape", "min_scale"), [((32, 32), 0.08), ((32, 32), 0.2), ((32, 32), 0.5), ((24, 32), 0.3)])
def test_random_resized_crop_has_the_boxes_of_torchvision(shape, min_scale):
    """Sides that do not fit are drawn again: to cut them gives a tenth more of the area, and twice as many boxes of
    nearly the whole image."""
    count, middle = 4000, shape[1] // 2
    rows, columns = (np.arange(size, dtype=np.float32) + np.float32(0.5) for size in shape)
    image = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1)
    views = draws(lambda rng, image: augment.random_resized_crop(rng, image, min_scale), count, image)
    height = (views[:, 16, 0, 0] - views[:, 8, 0, 0]) / 8 * shape[0]
    width = (views[:, 0, middle + 4, 1] - views[:, 0, middle - 4, 1]) / 8 * shape[1]
    got = {"height": height, "width": width, "area": height * width / (shape[0] * shape[1])}
    rng = np.random.default_rng(0)
    top, left, height, width = np.transpose([torchvision_box(rng, *shape, min_scale) for _ in range(5 * count)])
    want = {"height": height, "width": width, "area": height * width / (shape[0] * shape[1])}
    for box in got, want:
        box |= {
            f"{name} above {size}": box[name] > size * scale
            for name, scale in (("area", 1), ("height", shape[0]), ("width", shape[1]))
            for size in (0.8, 0.999)
        }
    got |= {"centre": views[:, shape[0] // 2 - 1 : shape[0] // 2 + 1, 0, 0].mean(1)}
    want |= {"centre": top + height / 2}
    print(
        f"min_scale {min_scale} of {shape}: mean area {got['area'].mean():.3f} ({want['area'].mean():.3f}), "
        f"above .8 {got['area above 0.8'].mean():.3f} ({want['area above 0.8'].mean():.3f})"
    )
    for name in want:
        error = np.sqrt(want[name].std() ** 2 * (1 / count + 1 / (5 * count))) + 1e-3
        assert abs(got[name].mean() - want[name].mean()) < 4 * error, name


def test_where_no_draw_fits_the_box_is_the_largest_in_the_middle():
    box = jax.jit(augment.random_resized_crop, static_argnums=2)
    crop = jax.jit(augment.resized_crop)
    square, wide = floats((12, 12, 1)), floats((12, 48, 1))
    tall = np.swapaxes(wide, 0, 1)
    for seed in range(3):
        rng = jax.random.key(seed)
        close(box(rng, square, 1.0), square)
        close(box(rng, wide, 0.9), crop(wide, 0.0, 16.0, 12.0, 16.0))
        close(box(rng, tall, 0.9), crop(tall, 16.0, 0.0, 16.0, 12.0))


def test_cutout_is_a_square_that_may_stick_out():
    image = np.ones((12, 12, 1), np.float32)
    holes = draws(lambda rng, image: augment.random_cutout(rng, image, 4), 1000, image)[..., 0] == 0.5
    for hole in holes[:200]:
        rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
        assert 2 <= len(rows) <= 4 and 2 <= len(columns) <= 4
        assert hole.sum() == len(rows) * len(columns) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
    sides = [min(c + 2, 12) - max(c - 2, 0) for c in range(12)]
    assert abs(holes.sum((1, 2)).mean() - np.mean(sides) ** 2) < 0.5
    assert not (draws(lambda rng, image: augment.random_cutout(rng, image, 0), 10, image) == 0.5).any()


@pytest.fixture(scope="module")
def photographs():
    """Three 32x32 photographs, uint8: one of many colours, one dark, one of a single channel."""
    china, flower = (sklearn.datasets.load_sample_image(f"{name}.jpg") for name in ("china", "flower"))
    dark = flower[100:292:6, 200:392:6] // 3 + 7
    return china[:416:13, ::20], dark, china[40:72, 300:332, :1]


def pillow(image, change):
    grey = image.shape[-1] == 1
    out = np.asarray(change(Image.fromarray(image[..., 0] if grey else image)))
    return (out[..., None] if grey else out) / 255


POINTWISE = {
    "autocontrast": (augment.autocontrast, ImageOps.autocontrast, 1.001),
    "equalize": (augment.equalize, ImageOps.equalize, 1e-3),
    "smooth": (augment.smooth, lambda image: image.filter(ImageFilter.SMOOTH), 0.501),
    "posterize": (lambda x: augment.posterize(x, 5.0), lambda image: ImageOps.posterize(image, 5), 1e-3),
    "posterize to 8 bits": (lambda x: augment.posterize(x, 8.0), lambda image: image, 1e-3),
    "solarize": (lambda x: augment.solarize(x, 99.5 / 255), lambda image: ImageOps.solarize(image, 100), 1e-3),
}


@pytest.mark.parametrize("name", POINTWISE)
def test_operations_are_pillows(name, photographs):
    """Within the given number of Pillow's 256 levels: it truncates (1) or rounds (0.5), the floats here do not."""
    ours, theirs, levels = POINTWISE[name]
    for image in photographs:
        close(jax.jit(ours)(np.float32(image) / 255), pillow(image, theirs), levels / 255)


def test_autocontrast_and_equalize_of_flat_channels():
    image = np.full((40, 50, 3), [7, 100, 0], np.uint8)
    image[0, :3, 1] = [200, 9, 254]  # fewer than 255 pixels differ from the brightest: no step for equalize
    image[1:, :, 1] = 254
    image[..., 2] = 50 + np.arange(2000).reshape(40, 50) % 5
    for ours, theirs in ((augment.autocontrast, ImageOps.autocontrast), (augment.equalize, ImageOps.equalize)):
        got = jax.jit(ours)(np.float32(image) / 255)
        close(got, pillow(image, theirs), 1.001 / 255)
        close(got[..., 0], np.full((40, 50), 7 / 255))


def affine_operations(image, strength):
    """Pillow's own, as FixMatch calls them: colour outside is 128 here, 0.5 there."""
    rows, columns = image.size[1], image.size[0]
    outside = 128 if image.mode == "L" else (128, 128, 128)

    def transform(*matrix):
        return image.transform(image.size, Image.Transform.AFFINE, matrix, fillcolor=outside)

    return [
        image.rotate(30 * strength, fillcolor=outside),
        transform(1, 0.3 * strength, 0, 0, 1, 0),
        transform(1, 0, 0, 0.3 * strength, 1, 0),
        transform(1, 0, 0.3 * strength * columns, 0, 1, 0),
        transform(1, 0, 0, 0, 1, 0.3 * strength * rows),
    ]


def test_affine_operations_are_pillows(photographs):
    """Equal pixels; a coordinate between two pixels may fall to either side."""
    ours = jax.jit(jax.vmap(augment.affine, (None, 0)))
    for strength in (-0.931, 0.377):
        for image in (*photographs, photographs[0][:20]):
            views = ours(np.float32(image) / 255, augment._affine_maps(jnp.float32(strength), *image.shape[:2]))
            for i, view in enumerate(views):
                wanted = pillow(image, lambda picture, i=i, s=strength: affine_operations(picture, s)[i])
                wrong = (np.abs(view - wanted) > 0.6 / 255).any(-1).mean()
                assert wrong < 0.005, (i, strength, image.shape, wrong)


def test_randaugment_draws_every_operation_over_its_range(photographs):
    """One step on one photograph: each of 14 equally likely operations recognised by Pillow's result."""
    count, photograph = 700, photographs[0]
    preset = augment.randaugment(padding=0, flip=False, operations=1, magnitude=1.0, probability=1.0, cutout=0.0)
    views = np.asarray(jax.jit(preset)(jax.random.key(7), np.broadcast_to(photograph, (count, 32, 32, 3))))

    def nearest(candidates):
        """The strength of the most like candidate, and how unlike it is, for every view."""
        pixels = [np.asarray(candidate) / np.float32(255) for candidate in candidates]
        errors = np.stack([np.abs(views - candidate).mean((1, 2, 3)) for candidate in pixels])
        return errors.argmin(0), errors.min(0)

    picture, grid = Image.fromarray(photograph), np.linspace(0, 1, 61, dtype=np.float32)
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Color, ImageEnhance.Contrast, ImageEnhance.Sharpness)
    families = [[picture], [ImageOps.autocontrast(picture)], [ImageOps.equalize(picture)]]
    families += [[enhancer(picture).enhance(0.05 + 0.9 * strength) for strength in grid] for enhancer in enhancers]
    families += [[ImageOps.posterize(picture, bits) for bits in (4, 5, 6, 7)]]
    families += [[ImageOps.solarize(picture, int(256 * strength)) for strength in grid]]
    families += zip(*(affine_operations(picture, strength) for strength in 2 * grid - 1), strict=True)
    strengths, errors = zip(*map(nearest, families), strict=True)
    family = np.stack(errors).argmin(0)
    assert np.quantile(np.stack(errors).min(0), 0.95) < 0.01
    expected = np.full(14, 1 / 14)
    expected[[0, 7]] = 1.2 / 14, 0.8 / 14  # one in five of posterize keeps all 8 bits
    frequency = np.bincount(family, minlength=14) / count
    assert np.abs(frequency - expected).max() < 0.035, frequency
    for i in (3, 4, 5, 6, 9, 10, 11, 12, 13):
        drawn = grid[strengths[i][family == i]]
        assert drawn.min() < 0.08 and drawn.max() > 0.92 and abs(drawn.mean() - 0.5) < 0.15, i


def test_randaugment_at_its_limits(photographs):
    """At probability 0 nothing, at no strength only autocontrast and equalize; cutout comes last."""
    images = np.broadcast_to(photographs[0], (64, 32, 32, 3))
    keywords = RANDAUGMENT | dict(padding=0, flip=False, operations=1)
    off = augment.randaugment(**keywords | dict(probability=0.0, cutout=0.0))
    close(jax.jit(off)(jax.random.key(0), images), images / 255)
    mild = augment.randaugment(**keywords | dict(probability=1.0, magnitude=1e-6, cutout=0.5))
    views = np.asarray(jax.jit(mild)(jax.random.key(0), images))
    holes = (views == 0.5).all(-1)
    assert holes.sum((1, 2)).min() >= 64 and holes.sum((1, 2)).max() == 256
    changed = np.where(holes[..., None], 0, np.abs(views - images / 255)).max((1, 2, 3)) > 0.051
    assert 0 < changed.mean() < 0.35  # 2 of 14, where a factor of 0.95 changes no pixel by more than 0.05


def test_noise_of_vectors_is_in_units_of_their_columns():
    rows = np.random.default_rng(0).normal(size=(4000, 3)).astype(np.float32) * np.array([[1, 100, 0.01]], np.float32)
    added = jax.jit(augment.noise(scale=0.5))(jax.random.key(0), rows) - rows
    np.testing.assert_allclose(np.std(added, 0), 0.5 * np.std(rows, 0), rtol=0.05)
    assert np.abs(np.corrcoef(added.T) - np.eye(3)).max() < 0.1
