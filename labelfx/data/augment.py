"""Augmentation on the device, inside the jitted step.

A builder (`identity`, `noise`, `crop_flip`, `simclr`, `simclr_resized`, `small_grey`, `randaugment`) returns an
`Augmentation`, `augment(rng, images) -> images`: uint8 or float [B, H, W, C] to float in [0, 1], or near it for
`noise`, of the same shape but for `simclr_resized`, and float32 unless the images are of another float type.
Every image draws its own random numbers, and those of row i depend on `(rng, i)` only: not on the batch size, nor on
`jit`. Instead of one `rng` there may be one for each row, keys [B], which are then all that its view depends on.

The other functions act on one float image [H, W, C] in [0, 1]. Those named `random_*` take `rng` first. Interpolation
is bilinear and repeats the border, but for RandAugment's `affine`, which is as published.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from labelfx.config.annotations import Fraction, Limit, NonNegative, NonNegativeInt, PositiveInt, Probability
from labelfx.data import lookups
from labelfx.data.placement import Placement, labels_at, turned

Scale = Annotated[float, Limit("a number in (0, 1]", lambda v: 0 < v <= 1)]


@dataclasses.dataclass(frozen=True, eq=False)  # no tuple, which is no function to jit
class Augmentation:
    """`augment(rng, images) -> images` in two parts, each a pure function of one float image and its own `rng`.

    apply: `(rng, placement, image) -> image`. With the placement None nothing moves, and only values change.
    draw: `(rng, image) -> placement`, from the image's shape and dtype alone; None of an augmentation that does not
      say where its pixels come from.
    """

    apply: Callable[..., jax.Array]
    draw: Callable[..., Placement | None] | None

    def __call__(self, rng: jax.Array, images: jax.Array) -> jax.Array:
        draw = self.draw or _nowhere
        return _each(lambda rng, image: self.apply(rng, draw(rng, image), image), rng, images)


def augmented(
    augment: Callable[..., jax.Array], rng: jax.Array, columns: dict[str, Any]
) -> tuple[jax.Array, dict[str, Any]]:
    """The views of a stream's `input`, and its columns, of which a dense `label`, int32 [B, H, W], is the views'.

    Raises:
      ValueError: there is one, and the augmentation cannot tell where its pixels come from, or it is of another size.
    """
    images, label = columns["input"], columns.get("label")
    if label is None or not is_dense(label):
        return augment(rng, images), columns
    if label.shape != images.shape[:3]:
        raise ValueError(f"dense labels are {list(label.shape)}, images {list(images.shape)}; must have their pixels")
    views, placements = placed(augment, rng, images)
    return views, columns | {"label": jax.vmap(labels_at)(placements, label)}


def placed(augment: Callable[..., jax.Array], rng: jax.Array, images: jax.Array) -> tuple[jax.Array, Placement | None]:
    """The views of images, and where each comes from; None where nothing has moved.

    Raises:
      ValueError: the augmentation cannot tell where its pixels come from.
    """
    placing = _placing(augment)

    def view(rng, image):
        placement = placing.draw(rng, image)
        return placing.apply(rng, placement, image), placement

    return _each(view, rng, images)


def restyled(augment: Callable[..., jax.Array], rng: jax.Array, images: jax.Array) -> jax.Array:
    """Views in which every pixel stays where it is.

    Raises:
      ValueError: the augmentation cannot leave them there.
    """
    placed = _placing(augment)
    return _each(lambda rng, image: placed.apply(rng, None, image), rng, images)


def is_dense(label: jax.Array) -> bool:
    """Whether labels are those of pixels, int32 [B, H, W]."""
    return label.ndim == 3 and label.dtype == jnp.int32


def _placing(augment):
    if isinstance(augment, Augmentation) and augment.draw is not None:
        return augment
    able = "identity, noise, crop_flip, simclr or small_grey"
    raise ValueError(
        f"an augmentation that does not say where its pixels come from has no dense labels, no label map; take {able}"
    )


def identity() -> Augmentation:
    """No augmentation: `to_float` alone. The one for text, whose views differ by dropout (SimCSE, Gao et al. 2021)."""
    return Augmentation(lambda rng, placement, image: image, _nowhere)


def noise(*, scale: NonNegative) -> Augmentation:
    """Adds Gaussian noise of standard deviation `scale` to every entry, without a cut; of vectors [B, F] `scale` is in
    units of each column's own standard deviation in the batch, whatever they are measured in."""
    return _Noise(
        lambda rng, placement, image: image + scale * jax.random.normal(rng, image.shape, image.dtype), _nowhere
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Noise(Augmentation):
    def __call__(self, rng: jax.Array, images: jax.Array) -> jax.Array:
        if images.ndim != 2:
            return super().__call__(rng, images)
        if rng.ndim:
            raise ValueError("noise of vectors is in units of their batch: a view is not a function of its own key")
        return images + jnp.std(images, 0, keepdims=True) * super().__call__(rng, jnp.zeros_like(images))


def crop_flip(*, padding: NonNegativeInt, flip: bool) -> Augmentation:
    """The weak augmentation of CIFAR (He et al. 2016, section 4.2; 4 pixels), padded by reflection as in FixMatch."""

    def draw(rng, image):
        rng_shift, rng_flip = jax.random.split(rng)
        top, left = _offsets(rng_shift, padding).astype(image.dtype)
        return _placement(image, (top, left, *image.shape[:2]), flip=_mirrors(rng_flip) if flip else False)

    def apply(rng, placement, image):
        if placement is None:
            return image
        image = _shifted(image, placement.top.astype(int), placement.left.astype(int), padding)
        return jnp.where(placement.flip, image[:, ::-1], image) if flip else image

    return Augmentation(apply, draw)


def simclr(
    *, min_scale: Scale, flip: bool, jitter_strength: NonNegative, grayscale: Probability, blur: Probability
) -> Augmentation:
    """Random resized crop, flip, colour jitter, grayscale and blur (SimCLR, Chen et al. 2020, appendix A); RGB images.

    Published for ImageNet: min_scale 0.08, jitter_strength 1, grayscale 0.2, blur 0.5; for CIFAR-10 jitter_strength
    0.5 and no blur. Jitter acts with probability 0.8, blur has a standard deviation of 0.1 to 2 pixels.
    """

    return _simclr(None, min_scale, flip, jitter_strength, grayscale, blur)


def simclr_resized(
    *,
    size: PositiveInt,
    min_scale: Scale,
    flip: bool,
    jitter_strength: NonNegative,
    grayscale: Probability,
    blur: Probability,
) -> Augmentation:
    """`simclr` whose crops are resized to `size` x `size` pixels, [B, size, size, 3], whatever the images' shape.

    The network then trains on views of another size than it is evaluated on: one that pools over all places takes both.
    Chuang et al. (2020) train so on STL-10, of 96 pixels: size 32, min_scale 0.08, jitter_strength 0.5, grayscale 0.2,
    blur 0.5.
    """
    return _simclr((size, size), min_scale, flip, jitter_strength, grayscale, blur)


def small_grey(
    *, min_scale: Scale, max_rotation: NonNegative, jitter_strength: NonNegative, cutout: Fraction
) -> Augmentation:
    """For small grey images such as digits, where a flip would change the class.

    Random resized crop, rotation by up to `max_rotation` degrees, brightness and contrast jitter, and one square of
    side `cutout * H` set to 0.5 (DeVries & Taylor 2017), which the backbones see as zero.
    """

    def draw(rng, image):
        rng_crop, rng_rotate, _, _ = jax.random.split(rng, 4)
        degrees = _uniform(rng_rotate, image, -max_rotation, max_rotation)
        return _placement(image, _random_box(rng_crop, image, min_scale), degrees=degrees)

    def apply(rng, placement, image):
        _, _, rng_jitter, rng_cutout = jax.random.split(rng, 4)
        if placement is not None:
            image = rotate(resized_crop(image, *placement[:4]), placement.degrees)
        image = random_jitter(rng_jitter, image, jitter_strength)
        return random_cutout(rng_cutout, image, round(cutout * image.shape[0]))

    return Augmentation(apply, draw)


def randaugment(
    *,
    padding: NonNegativeInt,
    flip: bool,
    operations: PositiveInt,
    magnitude: Scale,
    probability: Probability,
    cutout: Fraction,
) -> Augmentation:
    """The strong augmentation of FixMatch (Sohn et al. 2020, section 2.3 and appendix): RandAugment, then cutout.

    After `crop_flip(padding, flip)`, each of `operations` steps draws one of 14 operations and, with `probability`,
    applies it at a strength drawn from its range: brightness, colour, contrast and sharpness factors 0.05 to 0.95,
    posterize to 4 to 8 bits, rotation by up to 30 degrees, shear by up to 0.3, any threshold of solarize, translation
    by up to 0.3 of the side; autocontrast, equalize and identity have none. `magnitude` below 1 keeps that part of each
    range which is nearest to the identity. Last, a square of side `cutout * H` is set to 0.5.

    Published for CIFAR-10: padding 4, flip, 2 operations, magnitude 1, cutout 0.5. The ranges are the paper's; its code
    has others (such as factors of 0.1 to 1.9), draws whole levels of strength and has probability 0.5. As in that code,
    what rotation, shear and translation bring in is 0.5. Colour leaves grey images alone. Where pixels come from is not
    said: they are moved between operations that look at their neighbours.
    """

    def augment(rng, _, image):
        rng_shift, rng_flip, rng_operations, rng_cutout = jax.random.split(rng, 4)
        image = random_shift(rng_shift, image, padding)
        image = random_flip(rng_flip, image) if flip else image
        image, _ = jax.lax.scan(
            lambda image, rng: (sometimes(rng, probability, image, lambda rng: step(rng, image)), None),
            image,
            jax.random.split(rng_operations, operations),
        )
        return random_cutout(rng_cutout, image, round(cutout * image.shape[0]))

    def step(rng, image):
        rng_operation, rng_strength, rng_sign = jax.random.split(rng, 3)
        operation = jax.random.randint(rng_operation, (), 0, 14)
        strength = _uniform(rng_strength, image, 0.0, magnitude)
        factor, signed = 0.95 - 0.9 * strength, strength * jax.random.rademacher(rng_sign, (), image.dtype)
        # The five affine operations share one resampling: under vmap every branch is computed for every image.
        matrix = jax.lax.select_n(jnp.maximum(operation - 9, 0), *_affine_maps(signed, *image.shape[:2]))
        branches = [
            lambda: image,
            lambda: autocontrast(image),
            lambda: equalize(image),
            lambda: blend(jnp.zeros_like(image), image, factor),  # brightness
            lambda: blend(luminance(image), image, factor),  # colour
            lambda: blend(luminance(image).mean(), image, factor),  # contrast
            lambda: blend(smooth(image), image, factor),  # sharpness
            lambda: posterize(image, 8 - jnp.floor(5 * strength)),
            lambda: solarize(image, 256 / 255 * (1 - strength)),
            lambda: affine(image, matrix),
        ]
        return jax.lax.switch(jnp.minimum(operation, 9), branches)

    return Augmentation(augment, None)


def to_float(images: jax.Array) -> jax.Array:
    """uint8 to float32 in [0, 1]; float images, and the int32 token ids of text, as they are.

    Raises:
      TypeError: any other dtype.
    """
    if images.dtype == jnp.uint8:
        return images.astype(jnp.float32) / 255
    if images.dtype != jnp.int32 and not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(f"images must be uint8 or float, or int32 token ids, got {images.dtype}")
    return images


def sometimes(rng, probability, image, change):
    """`change(rng)` with this probability, otherwise `image`."""
    rng_choice, rng_change = jax.random.split(rng)
    return jnp.where(jax.random.bernoulli(rng_choice, probability), change(rng_change), image)


def random_resized_crop(rng, image, min_scale, shape=None):
    """A box of `min_scale` to 1 of the area and aspect ratio 3/4 to 4/3, resized by `resized_crop`.

    As torchvision's RandomResizedCrop: the first of ten draws that fits, or else the largest box in the middle whose
    ratio is allowed, which of a square image is all of it. Unlike there, sides and places are not rounded to pixels;
    resizing is bilinear. SimCLR's code resizes bicubically, and its crops are TensorFlow's, which are smaller: at 0.08
    their mean area is 0.40, here 0.48.
    """
    top, left, height, width = _random_box(rng, image, min_scale)
    return resized_crop(image, top, left, height, width, shape)


def _random_box(rng, image, min_scale):
    rng_area, rng_ratio, rng_place = jax.random.split(rng, 3)
    rows, columns, _ = image.shape
    area = rows * columns * jax.random.uniform(rng_area, (10,), image.dtype, min_scale, 1.0)
    ratio = jnp.exp(math.log(4 / 3) * jax.random.uniform(rng_ratio, (10,), image.dtype, -1.0, 1.0))
    nearest = min(max(columns / rows, 3 / 4), 4 / 3)
    heights = jnp.append(jnp.sqrt(area / ratio), min(rows, columns / nearest))
    widths = jnp.append(jnp.sqrt(area * ratio), min(columns, rows * nearest))
    first = jnp.argmax((heights <= rows) & (widths <= columns))
    height, width = heights[first], widths[first]
    top, left = jnp.where(first == 10, 0.5, jax.random.uniform(rng_place, (2,), image.dtype))
    return top * (rows - height), left * (columns - width), height, width


def resized_crop(image, top, left, height, width, shape=None):
    """The box at (top, left), in pixels and fractions of them, resized to `shape`, (H, W): the image's unless given.

    Where several pixels become one, all of them count, as where Pillow resizes a `box`. (torchvision cuts the box out
    before: what is at its edge takes nothing from beside it.)
    """
    rows, columns = shape or image.shape[:2]
    # Two small matrix products: on CPU far faster than gathering four neighbours of every pixel.
    down, across = _interpolation(image, 0, top, height, rows), _interpolation(image, 1, left, width, columns)
    return _separable(down, across, image)


def random_shift(rng, image, padding):
    """A shift by up to `padding` pixels each way, filled by reflection."""
    top, left = _offsets(rng, padding)
    return _shifted(image, top, left, padding)


def _offsets(rng, padding):
    return jax.random.randint(rng, (2,), 0, 2 * padding + 1) - padding


def _shifted(image, top, left, padding):
    padded = jnp.pad(image, ((padding, padding), (padding, padding), (0, 0)), mode="reflect")
    return lookups.window(padded, top + padding, left + padding, *image.shape[:2])


def random_flip(rng, image):
    """Left to right, with probability 1/2."""
    return jnp.where(_mirrors(rng), image[:, ::-1], image)


def _mirrors(rng):
    return jax.random.bernoulli(jax.random.split(rng)[0], 0.5)


def rotate(image, degrees):
    """Counter-clockwise about the centre."""
    rows, columns, _ = image.shape
    return _sample(image, *turned(rows, columns, jnp.asarray(degrees, image.dtype)))


def random_jitter(rng, image, strength):
    """SimCLR's colour jitter: factors within 1 +- 0.8 strength, hue turned by up to 0.2 strength of the circle.

    The order is fixed: brightness, contrast, then saturation and hue on RGB images (SimCLR draws the order).
    """
    rng_brightness, rng_contrast, rng_saturation, rng_hue = jax.random.split(rng, 4)

    def factor(rng):
        return _uniform(rng, image, max(0.0, 1 - 0.8 * strength), 1 + 0.8 * strength)

    image = blend(jnp.zeros_like(image), image, factor(rng_brightness))
    image = blend(luminance(image).mean(), image, factor(rng_contrast))
    if image.shape[-1] == 1:
        return image
    image = blend(luminance(image), image, factor(rng_saturation))
    return turn_hue(image, _uniform(rng_hue, image, -0.2 * strength, 0.2 * strength))


def blend(base, image, factor):
    """`base + factor * (image - base)`, clipped to [0, 1]."""
    return jnp.clip(base + factor * (image - base), 0, 1)


def luminance(image):
    """[H, W, 1]: 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601); a grey image as it is."""
    if image.shape[-1] == 1:
        return image
    return jnp.sum(image * jnp.asarray([[[0.299, 0.587, 0.114]]], image.dtype), -1, keepdims=True)


def turn_hue(image, turns):
    """Adds `turns` (1 is the whole circle) to the hue of an RGB image, in HSV."""
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    value, chroma = image.max(-1), image.max(-1) - image.min(-1)
    divisor = jnp.where(chroma == 0, 1, chroma)
    # By comparing channels, not `value == red`: a compiler may compute the two sides of that in different roundings.
    sixths = jnp.where(
        red >= jnp.maximum(green, blue),
        (green - blue) / divisor,
        jnp.where(green >= blue, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    phases = [(offset + sixths + 6 * turns) % 6 for offset in (5, 3, 1)]
    return jnp.stack([value - chroma * jnp.clip(jnp.minimum(k, 4 - k), 0, 1) for k in phases], -1)


def gaussian_blur(image, sigma):
    """Gaussian of standard deviation `sigma` pixels, not truncated; at the border its weights inside are rescaled."""

    def weights(size):
        offset = jnp.arange(size, dtype=image.dtype)
        return jax.nn.softmax(-jnp.square((offset[:, None] - offset[None, :]) / sigma) / 2, axis=1)

    return _separable(weights(image.shape[0]), weights(image.shape[1]), image)


def autocontrast(image):
    """Stretches every channel to [0, 1]; a constant channel stays as it is."""
    low, high = image.min((0, 1), keepdims=True), image.max((0, 1), keepdims=True)
    return jnp.where(high > low, (image - low) / jnp.where(high > low, high - low, 1), image)


def equalize(image):
    """Flattens the histogram of every channel, at 256 levels and with Pillow's rounding."""

    def channel(levels):
        histogram = lookups.count(levels)
        below = jnp.cumsum(histogram) - histogram
        step = jnp.sum(levels < levels.max()) // 255
        table = jnp.where(step > 0, jnp.minimum((step // 2 + below) // jnp.maximum(step, 1), 255), jnp.arange(256))
        return lookups.pick(table, levels)

    levels = jnp.round(255 * image).astype(jnp.int32).reshape(-1, image.shape[-1])
    return jax.vmap(channel, 1, 1)(levels).reshape(image.shape).astype(image.dtype) / 255


def posterize(image, bits):
    """Keeps the highest `bits` of the 8 bits of every pixel."""
    step = jnp.exp2(8 - bits)
    return jnp.floor(jnp.round(255 * image) / step) * step / 255


def solarize(image, threshold):
    """Inverts the pixels at or above the threshold."""
    return jnp.where(image < threshold, image, 1 - image)


def smooth(image):
    """Pillow's SMOOTH: a 3x3 mean with weight 5 in the middle and 1 around it; the border stays as it is."""
    rows = image[:-2] + image[1:-1] + image[2:]
    box = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    middle = jnp.concatenate([image[1:-1, :1], (box + 4 * image[1:-1, 1:-1]) / 13, image[1:-1, -1:]], 1)
    return jnp.concatenate([image[:1], middle, image[-1:]])


def affine(image, matrix):
    """The pixel at (x, y) is that nearest to `matrix @ (x, y, 1)`, with matrix [2, 3], or 0.5 outside the image.

    Coordinates are those of pixel centres, (0.5, 0.5) for the first.
    """
    rows, columns, _ = image.shape
    y = jnp.arange(rows, dtype=image.dtype)[:, None] + 0.5
    x = jnp.arange(columns, dtype=image.dtype)[None, :] + 0.5
    source_x = jnp.floor(matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2]).astype(jnp.int32)
    source_y = jnp.floor(matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2]).astype(jnp.int32)
    inside = (source_x >= 0) & (source_x < columns) & (source_y >= 0) & (source_y < rows)
    return jnp.where(inside[..., None], lookups.warp(image, source_y, source_x), jnp.asarray(0.5, image.dtype))


def random_cutout(rng, image, side):
    """A square of `side` pixels set to 0.5; its centre is anywhere in the image, so that it may stick out."""
    rng_y, rng_x = jax.random.split(rng)

    def inside(rng, size):
        first = jax.random.randint(rng, (), 0, size) - side // 2
        return (jnp.arange(size) >= first) & (jnp.arange(size) < first + side)

    square = inside(rng_y, image.shape[0])[:, None, None] & inside(rng_x, image.shape[1])[None, :, None]
    return jnp.where(square, jnp.asarray(0.5, image.dtype), image)


def _each(change, rng, images):
    rngs = rng if rng.ndim else jax.vmap(lambda row: jax.random.fold_in(rng, row))(jnp.arange(len(images)))
    return jax.vmap(change)(rngs, to_float(images))


def _nowhere(rng, image):
    """The placement where nothing moves."""
    return None


def _placement(image, box, degrees=0.0, flip=False):
    top, left, height, width, degrees = (jnp.asarray(each, image.dtype) for each in (*box, degrees))
    return Placement(top, left, height, width, degrees, jnp.asarray(flip))


def _simclr(shape, min_scale, flip, jitter_strength, grayscale, blur):
    def draw(rng, image):
        rng_crop, rng_flip, *_ = jax.random.split(rng, 5)
        box = _random_box(rng_crop, image, min_scale)
        return _placement(image, box, flip=_mirrors(rng_flip) if flip else False)

    def apply(rng, placement, image):
        if image.shape[-1] != 3:
            raise ValueError(f"simclr takes RGB images, got shape {image.shape}; small_grey is for grey ones")
        _, _, rng_jitter, rng_grey, rng_blur = jax.random.split(rng, 5)
        if placement is not None:
            image = resized_crop(image, placement.top, placement.left, placement.height, placement.width, shape)
            image = jnp.where(placement.flip, image[:, ::-1], image) if flip else image
        image = sometimes(rng_jitter, 0.8, image, lambda rng: random_jitter(rng, image, jitter_strength))
        image = sometimes(rng_grey, grayscale, image, lambda rng: jnp.broadcast_to(luminance(image), image.shape))
        return sometimes(rng_blur, blur, image, lambda rng: gaussian_blur(image, _uniform(rng, image, 0.1, 2.0)))

    return Augmentation(apply, draw)


def _affine_maps(signed, rows, columns):
    """[5, 2, 3]: rotation, shears along x and y and translations along x and y, at a strength in [-1, 1]."""
    angle, slope, zero, one = jnp.deg2rad(30 * signed), 0.3 * signed, jnp.zeros_like(signed), jnp.ones_like(signed)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    centre_x, centre_y = columns / 2, rows / 2
    maps = [
        [cos, -sin, centre_x - cos * centre_x + sin * centre_y, sin, cos, centre_y - sin * centre_x - cos * centre_y],
        [one, slope, zero, zero, one, zero],
        [one, zero, zero, slope, one, zero],
        [one, zero, slope * columns, zero, one, zero],
        [one, zero, zero, zero, one, slope * rows],
    ]
    return jnp.stack([jnp.stack(row) for row in maps]).reshape(5, 2, 3)


def _uniform(rng, image, low=0.0, high=1.0):
    return jax.random.uniform(rng, (), image.dtype, low, high)


def _separable(down, across, image):
    # The default precision of accelerators (bfloat16) would quantise the pixels.
    return jnp.einsum("yi,xj,ijc->yxc", down, across, image, precision="highest")


def _interpolation(image, axis, start, length, size):
    """[size, side] weights of the image's pixels along this axis (columns) in each of the box's pixels (rows)."""
    side = image.shape[axis]
    pixel, place = jnp.arange(side, dtype=image.dtype), jnp.arange(size, dtype=image.dtype)
    source = jnp.clip(start + (place + 0.5) * (length / size) - 0.5, 0, side - 1)
    away = jnp.abs(source[:, None] - pixel[None, :])
    if size >= side:  # no box has more pixels than are asked for
        return jnp.maximum(1 - away, 0)
    weights = jnp.maximum(1 - away / jnp.maximum(length / size, 1), 0)
    return weights / jnp.sum(weights, 1, keepdims=True)


def _sample(image, y, x):
    """Bilinear values of the image at coordinates y, x [H, W] inside it."""
    top, left = jnp.floor(y).astype(jnp.int32), jnp.floor(x).astype(jnp.int32)
    bottom, right = jnp.minimum(top + 1, image.shape[0] - 1), jnp.minimum(left + 1, image.shape[1] - 1)
    down, across = (y - jnp.floor(y))[..., None], (x - jnp.floor(x))[..., None]
    upper = image[top, left] * (1 - across) + image[top, right] * across
    lower = image[bottom, left] * (1 - across) + image[bottom, right] * across
    return upper * (1 - down) + lower * down
