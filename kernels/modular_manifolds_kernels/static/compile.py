"""One kernel compiled ahead of time for a machine that need not be there, and what the compiler said."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from modular_manifolds_kernels.configuration import Configuration
from modular_manifolds_kernels.shipped import KERNELS
from modular_manifolds_kernels.static.targets import TARGETS

ENVIRONMENT: Final = {
    # Contracting a·b + c is today's default and a warning where it is not said.
    "TRITON_DEFAULT_FP_FUSION": "1",
    # The same text whatever the folder and the line of the source.
    "TRITON_DISABLE_LINE_INFO": "1",
    "TRITON_DUMP_PTXAS_LOG": "1",
    "TRITON_INTERPRET": "0",
}
"""What must be set before Triton is imported."""


@dataclass(frozen=True)
class Compiled:
    """The texts of one compilation. `assembly` is SASS for NVIDIA and AMD's own text for AMD."""

    ttir: str
    intermediate: str
    """PTX; for AMD the assembly once more."""
    assembly: str
    log: str
    """What ptxas wrote; empty for AMD."""
    usage: str
    """What cuobjdump says of registers and stack; empty for AMD."""
    shared: int
    tensor_columns: int
    triton: str

    @property
    def digest(self) -> str:
        """Says whether anything changed, for one version of Triton."""
        return hashlib.sha256(self.intermediate.encode()).hexdigest()


def compile_one(configuration: Configuration) -> Compiled:
    """Compile a configuration; needs Triton, and no GPU and no driver.

    Raises:
        whatever Triton raises for a kernel that it cannot compile.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    target = TARGETS[configuration.target]
    names = list(configuration.signature)
    source = ASTSource(
        KERNELS[configuration.kernel],
        signature=dict(configuration.signature),
        constexprs=dict(configuration.constexprs),
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in configuration.divisible},
    )
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        kernel = triton.compile(
            source,
            target=GPUTarget(target.backend, target.arch, target.warp),
            options={"num_warps": configuration.warps, "num_stages": configuration.stages},
        )
    if target.backend == "hip":
        assembly = kernel.asm["amdgcn"]
        usage, intermediate, log = "", assembly, ""
    else:
        assembly, usage = _disassembled(kernel.asm["cubin"], Path(triton.__file__).parent)
        intermediate, log = kernel.asm["ptx"], printed.getvalue()
    return Compiled(
        ttir=kernel.asm["ttir"],
        intermediate=intermediate,
        assembly=assembly,
        log=log,
        usage=usage,
        shared=int(kernel.metadata.shared),
        tensor_columns=int(getattr(kernel.metadata, "tmem_size", 0) or 0),
        triton=triton.__version__,
    )


def _disassembled(cubin: bytes, triton: Path) -> tuple[str, str]:
    """SASS and resource usage, by the tools in Triton's wheel: a system's own may be too old to read it."""
    tools = triton / "backends" / "nvidia" / "bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        texts = [
            subprocess.run(
                [str(tools / command[0]), *command[1:], file.name],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            for command in (["nvdisasm", "-c", "-ndf"], ["cuobjdump", "-res-usage"])
        ]
    return texts[0], texts[1]


def number(pattern: str, text: str) -> int | None:
    """The first number that a pattern finds."""
    found = re.search(pattern, text)
    return None if found is None else int(found[1])
