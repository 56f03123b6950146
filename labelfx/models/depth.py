"""How high a parameter of a pretrained encoder lies, by its path."""

import re
from collections.abc import Iterable

BLOCK = re.compile(r"(?:^|[/.])(?:blocks|layer|stages)\.?(\d+)(?:\.(?:blocks\.)?(\d+))?(?=[/.])")
STEM = re.compile(
    r"(?:^|/)(?:bn1|cls_token|conv1|conv_stem|embeddings|norm_pre|patch_embed|pos_embed|reg_token|stem)\b"
)


def block_of(path: str) -> tuple[int, ...] | None:
    """The numbers of the block that a path with "/" lies in, if it lies in one."""
    found = BLOCK.search(path)
    return found and tuple(int(number or 0) for number in found.groups())


def blocks_of(paths: Iterable[str]) -> list[tuple[int, ...]]:
    """The blocks that paths number, the first one first."""
    return sorted({block for block in map(block_of, paths) if block})


def upper_third(paths: Iterable[str]) -> tuple[str, ...]:
    """Parts of paths that those of the last third of the blocks have, and what lies on top, and no others."""
    kernels = [path for path in paths if path.endswith("/kernel")]
    blocks = blocks_of(kernels)
    upper = blocks[-max(1, len(blocks) // 3) :]
    found = {}
    for path in kernels:
        if block := BLOCK.search(path):
            if block_of(path) in upper:
                found[path[block.start() : block.end() + 1].lstrip("/.")] = True
        elif not STEM.search(path):
            found[path.removesuffix("kernel")] = True
    return tuple(found)
