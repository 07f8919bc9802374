"""GPUs that a program can be compiled for without having one, as XLA's compiler wants them described.

Figures of the chips as the XLA project publishes them (openxla/xla, xla/backends/gpu/target_config/specs).
"""

_MI, _KI = 1 << 20, 1 << 10

# cores, arithmetic units of a core, compute capability, GHz, bytes a second, bytes of memory, of level-2 cache, and of
# the memory that the threads of a core and of a block share.
_CHIPS = {
    "a100": (108, 64, 8, 1.41, 2_039_040_000_000, 85_100_068_864, 40 * _MI, 164 * _KI, 163 * _KI),
    "h100": (132, 128, 9, 1.98, 3_352_320_000_000, 84_942_979_072, 50 * _MI, 228 * _KI, 227 * _KI),
    "h200": (132, 128, 9, 1.98, 4_800_000_000_000, 151_397_597_184, 50 * _MI, 228 * _KI, 227 * _KI),
    "b200": (148, 128, 10, 1.965, 7_672_320_000_000, 191_514_411_008, 132_644_864, 228 * _KI, 227 * _KI),
}
NAMES = tuple(_CHIPS)
# No GPU can be asked which of its kernels is the fastest, and what Triton generates needs that answer.
FLAGS = "--xla_gpu_enable_triton_gemm=false --xla_gpu_autotune_level=0"


def memory_of(name: str) -> int:
    """Bytes of one chip."""
    return _CHIPS[name][5]


def description_of(name: str) -> str:
    """The text of a `stream_executor.GpuTargetConfigProto`."""
    cores, units, capability, clock, bandwidth, memory, cache, shared_core, shared_block = _CHIPS[name]
    return f"""
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  core_count: {cores} fpus_per_core: {units} clock_rate_ghz: {clock}
  cuda_compute_capability {{ major: {capability} }}
  memory_bandwidth: {bandwidth} device_memory_size: {memory} l2_cache_size: {cache}
  shared_memory_per_block: 49152 shared_memory_per_core: {shared_core} shared_memory_per_block_optin: {shared_block}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
device_description_str: "{name}"
"""
