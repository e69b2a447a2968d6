#include "kdfs/base/checksum.h"

#include "kdfs/base/checksum_kernels.h"
#include "kdfs/base/types.h"

namespace kdfs {
namespace {

using Kernel = uint64_t (*)(const void*, size_t);

Kernel choose_kernel() {
    if (__builtin_cpu_supports("avx512f") != 0) {
        return detail::xxh3_avx512;
    }
    return __builtin_cpu_supports("avx2") != 0 ? detail::xxh3_avx2 : detail::xxh3_baseline;
}

}  // namespace

uint64_t checksum(std::span<const std::byte> bytes) {
    static const Kernel kernel = choose_kernel();
    return kernel(bytes.data(), bytes.size());
}

uint64_t checksum(std::string_view text) {
    return checksum(std::as_bytes(std::span(text.data(), text.size())));
}

std::vector<uint64_t> block_checksums(std::span<const std::byte> bytes) {
    std::vector<uint64_t> out;
    out.reserve((bytes.size() + kBlockBytes - 1) / kBlockBytes);
    for (size_t at = 0; at < bytes.size(); at += kBlockBytes) {
        out.push_back(
            checksum(bytes.subspan(at, std::min<size_t>(kBlockBytes, bytes.size() - at))));
    }
    return out;
}

}  // namespace kdfs
