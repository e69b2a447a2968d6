// Runs a fuzz target over files and folders of inputs, without libFuzzer.

#include "tests/fuzz/fuzz_input.h"

#include <sys/resource.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <vector>

namespace {

// The process may not have grown beyond this at the end; most of it is the program itself.
constexpr long kResidentKibibytesMax = 700 * 1024;

std::vector<std::filesystem::path> inputs_below(const std::filesystem::path& path) {
    if (!std::filesystem::is_directory(path)) {
        return {path};
    }
    std::vector<std::filesystem::path> out;
    for (const auto& entry : std::filesystem::directory_iterator(path)) {
        out.push_back(entry.path());
    }
    std::sort(out.begin(), out.end());
    return out;
}

}  // namespace

int main(int argc, char** argv) {
    size_t count = 0;
    for (int i = 1; i < argc; ++i) {
        for (const auto& path : inputs_below(argv[i])) {
            std::ifstream in(path, std::ios::binary);
            std::string bytes((std::istreambuf_iterator<char>(in)), {});
            std::cout << path.string() << ": " << bytes.size() << " bytes" << std::endl;
            LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
            ++count;
        }
    }
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    std::cout << count << " inputs, " << usage.ru_maxrss / 1024 << " MiB" << std::endl;
    return count != 0 && usage.ru_maxrss <= kResidentKibibytesMax ? 0 : 1;
}
