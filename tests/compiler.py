"""Flags with which XLA compiles fast, for code that runs slower: compiling is most of the time of these tests."""

from importlib.metadata import version

FLAGS = "--xla_backend_optimization_level=0"
ALIKE = {}  # for `jax.jit(compiler_options=...)`: programs that say the same in other words round the same
if version("jaxlib").startswith("0.10."):  # halves what is left; a compiler that does not know a flag ends the process
    FLAGS += " --xla_cpu_use_fusion_emitters=false"
    ALIKE["xla_cpu_use_fusion_emitters"] = True
