// kdfs-fsx: random operations on one file, checked after each against a model in memory.
// Usage: kdfs-fsx [-N operations] [-S seed] [-L bytes] PATH
// PATH is made, and removed after success. Exit status 0: no difference; 1: a difference or an
// error, printed with the last operations and the command that replays them; 64: bad arguments.

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <string>
#include <vector>

namespace {

constexpr uint64_t kPageBytes = 4096;
constexpr size_t kHistoryMax = 20;

struct Settings {
    uint64_t operations = 1000;
    uint64_t seed = 1;
    uint64_t length_max = 256 * 1024;
    std::string path;
};

// SplitMix64: the same sequence with every compiler.
class Dice {
public:
    explicit Dice(uint64_t seed) : state_(seed) {}
    uint64_t next() {
        state_ += 0x9e3779b97f4a7c15ULL;
        uint64_t z = state_;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
        return z ^ (z >> 31);
    }
    // 0 to end - 1.
    uint64_t below(uint64_t end) { return next() % end; }

private:
    uint64_t state_;
};

// The file, its model, and the operations. Any failure ends the program.
class Exerciser {
public:
    explicit Exerciser(Settings settings)
        : settings_(std::move(settings)), dice_(settings_.seed), path_(settings_.path) {
        open_file(O_RDWR | O_CREAT | O_TRUNC);
    }

    void run() {
        for (step_ = 1; step_ <= settings_.operations; ++step_) {
            one_step();
        }
        check_all();
        close(fd_);
        unlink(path_.c_str());
    }

private:
    void one_step() {
        struct Choice {
            uint64_t weight;
            void (Exerciser::*operation)();
        };
        static constexpr Choice kChoices[] = {{24, &Exerciser::read_some},
                                              {24, &Exerciser::write_some},
                                              {12, &Exerciser::map_read},
                                              {12, &Exerciser::map_write},
                                              {8, &Exerciser::append},
                                              {7, &Exerciser::truncate_down},
                                              {5, &Exerciser::truncate_up},
                                              {3, &Exerciser::sync},
                                              {3, &Exerciser::reopen},
                                              {1, &Exerciser::move},
                                              {1, &Exerciser::check_all}};
        uint64_t total = 0;
        for (const Choice& choice : kChoices) {
            total += choice.weight;
        }
        uint64_t at = dice_.below(total);
        for (const Choice& choice : kChoices) {
            if (at < choice.weight) {
                (this->*choice.operation)();
                break;
            }
            at -= choice.weight;
        }
        check_size();
    }

    // The operations.

    void read_some() {
        auto [offset, length] = range_in(model_.size());
        begin("read", offset, length);
        std::vector<char> got(length + 1);
        ssize_t count = pread(fd_, got.data(), length, static_cast<off_t>(offset));
        if (count != static_cast<ssize_t>(length)) {
            fail_count(count, length);
        }
        compare(got.data(), offset, length);
    }

    void write_some() {
        uint64_t offset = dice_.below(std::min<uint64_t>(model_.size() + 9000, room()));
        uint64_t length = 1 + dice_.below(std::min(piece_max(), settings_.length_max - offset));
        begin("write", offset, length);
        put(random_bytes(length), offset);
    }

    void append() {
        uint64_t length = 1 + dice_.below(20000);
        if (model_.size() + length > settings_.length_max) {
            return truncate_down();
        }
        begin("append", model_.size(), length);
        std::vector<char> data = random_bytes(length);
        int fd = open(path_.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
        ssize_t count = fd < 0 ? -1 : write(fd, data.data(), data.size());
        if (count != static_cast<ssize_t>(length)) {
            fail_count(count, length);
        }
        if (close(fd) != 0) {
            fail_errno("close after append");
        }
        model_.insert(model_.end(), data.begin(), data.end());
    }

    void truncate_down() {
        uint64_t length = dice_.below(model_.size() + 1);
        begin("truncate down to", length, 0);
        bool by_path = dice_.below(2) == 0;
        int done = by_path ? truncate(path_.c_str(), static_cast<off_t>(length))
                           : ftruncate(fd_, static_cast<off_t>(length));
        if (done != 0) {
            fail_errno("truncate");
        }
        model_.resize(length);
    }

    void truncate_up() {
        uint64_t length = model_.size() + dice_.below(settings_.length_max - model_.size() + 1);
        begin("truncate up to", length, 0);
        if (ftruncate(fd_, static_cast<off_t>(length)) != 0) {
            fail_errno("ftruncate");
        }
        model_.resize(length, '\0');
    }

    void map_read() {
        auto [offset, length] = range_in(model_.size());
        if (length == 0) {
            return;
        }
        begin("mapped read", offset, length);
        uint64_t start = offset / kPageBytes * kPageBytes;
        char* memory = map(start, offset + length - start, PROT_READ);
        compare(memory + (offset - start), offset, length);
        // Behind the end the last page is zero.
        uint64_t page_end = (model_.size() + kPageBytes - 1) / kPageBytes * kPageBytes;
        if (offset + length == model_.size()) {
            for (uint64_t i = model_.size(); i < page_end; ++i) {
                if (memory[i - start] != '\0') {
                    fail("a mapped byte behind the end is not zero, at " + std::to_string(i));
                }
            }
        }
        munmap(memory, offset + length - start);
    }

    void map_write() {
        auto [offset, length] = range_in(model_.size());
        if (length == 0) {
            return;
        }
        begin("mapped write", offset, length);
        uint64_t start = offset / kPageBytes * kPageBytes;
        char* memory = map(start, offset + length - start, PROT_READ | PROT_WRITE);
        std::vector<char> data = random_bytes(length);
        std::memcpy(memory + (offset - start), data.data(), length);
        if (msync(memory, offset + length - start, MS_SYNC) != 0) {
            fail_errno("msync");
        }
        munmap(memory, offset + length - start);
        std::copy(data.begin(), data.end(), model_.begin() + static_cast<ptrdiff_t>(offset));
    }

    void sync() {
        begin("fsync", 0, 0);
        if (fsync(fd_) != 0) {
            fail_errno("fsync");
        }
    }

    void reopen() {
        begin("close and open", 0, 0);
        if (close(fd_) != 0) {
            fail_errno("close");
        }
        open_file(O_RDWR);
    }

    void move() {
        std::string to = path_ == settings_.path ? settings_.path + ".moved" : settings_.path;
        begin("rename", 0, 0);
        if (rename(path_.c_str(), to.c_str()) != 0) {
            fail_errno("rename");
        }
        path_ = to;
    }

    void check_all() {
        begin("read everything", 0, model_.size());
        std::vector<char> got(model_.size() + 1);
        ssize_t count = pread(fd_, got.data(), got.size(), 0);
        if (count != static_cast<ssize_t>(model_.size())) {
            fail_count(count, model_.size());
        }
        compare(got.data(), 0, model_.size());
    }

    // Their parts.

    struct Range {
        uint64_t offset;
        uint64_t length;
    };
    Range range_in(uint64_t size) {
        if (size == 0) {
            return {0, 0};
        }
        uint64_t offset = dice_.below(size);
        return {offset, 1 + dice_.below(std::min(piece_max(), size - offset))};
    }
    uint64_t room() const { return settings_.length_max; }
    // Mostly small, sometimes long.
    uint64_t piece_max() { return dice_.below(4) == 0 ? 65536 : 6000; }

    std::vector<char> random_bytes(uint64_t length) {
        std::vector<char> data(length);
        for (char& byte : data) {
            byte = static_cast<char>(dice_.next());
        }
        return data;
    }

    void put(const std::vector<char>& data, uint64_t offset) {
        ssize_t count = pwrite(fd_, data.data(), data.size(), static_cast<off_t>(offset));
        if (count != static_cast<ssize_t>(data.size())) {
            fail_count(count, data.size());
        }
        model_.resize(std::max<uint64_t>(model_.size(), offset + data.size()), '\0');
        std::copy(data.begin(), data.end(), model_.begin() + static_cast<ptrdiff_t>(offset));
    }

    char* map(uint64_t start, uint64_t length, int protection) {
        void* memory =
            mmap(nullptr, length, protection, MAP_SHARED, fd_, static_cast<off_t>(start));
        if (memory == MAP_FAILED) {
            fail_errno("mmap");
        }
        return static_cast<char*>(memory);
    }

    void open_file(int flags) {
        fd_ = open(path_.c_str(), flags | O_CLOEXEC, 0644);
        if (fd_ < 0) {
            fail_errno("open " + path_);
        }
    }

    void check_size() {
        struct stat by_file {};
        struct stat by_path {};
        if (fstat(fd_, &by_file) != 0 || stat(path_.c_str(), &by_path) != 0) {
            fail_errno("stat");
        }
        for (off_t size : {by_file.st_size, by_path.st_size}) {
            if (static_cast<uint64_t>(size) != model_.size()) {
                fail("the size is " + std::to_string(size) + ", not " +
                     std::to_string(model_.size()));
            }
        }
    }

    void compare(const char* got, uint64_t offset, uint64_t length) {
        auto wanted = model_.begin() + static_cast<ptrdiff_t>(offset);
        auto differs = std::mismatch(wanted, wanted + static_cast<ptrdiff_t>(length), got);
        if (differs.first == wanted + static_cast<ptrdiff_t>(length)) {
            return;
        }
        auto at = static_cast<uint64_t>(differs.first - model_.begin());
        uint64_t wrong = 0;
        for (uint64_t i = 0; i < length; ++i) {
            wrong += model_[offset + i] != got[i] ? 1 : 0;
        }
        char text[160];
        std::snprintf(text,
                      sizeof text,
                      "the byte at %llu (0x%llx) is 0x%02x, not 0x%02x; %llu bytes of the range "
                      "differ",
                      static_cast<unsigned long long>(at),
                      static_cast<unsigned long long>(at),
                      static_cast<unsigned char>(*differs.second),
                      static_cast<unsigned char>(*differs.first),
                      static_cast<unsigned long long>(wrong));
        fail(text);
    }

    // The report.

    void begin(const char* what, uint64_t offset, uint64_t length) {
        history_.push_back(std::to_string(step_) + ": " + what + " " + std::to_string(offset) +
                           " +" + std::to_string(length) + " (size " +
                           std::to_string(model_.size()) + ")");
        if (history_.size() > kHistoryMax) {
            history_.pop_front();
        }
    }

    [[noreturn]] void fail_errno(const std::string& what) {
        fail(what + ": " + std::strerror(errno));
    }

    [[noreturn]] void fail_count(ssize_t count, uint64_t wanted) {
        if (count < 0) {
            fail_errno("the last operation");
        }
        fail("the last operation gave " + std::to_string(count) + " bytes, not " +
             std::to_string(wanted));
    }

    [[noreturn]] void fail(const std::string& what) {
        std::fprintf(stderr, "kdfs-fsx: %s\nthe last operations:\n", what.c_str());
        for (const std::string& line : history_) {
            std::fprintf(stderr, "    %s\n", line.c_str());
        }
        std::fprintf(stderr,
                     "replay: kdfs-fsx -N %llu -S %llu -L %llu %s\n",
                     static_cast<unsigned long long>(step_),
                     static_cast<unsigned long long>(settings_.seed),
                     static_cast<unsigned long long>(settings_.length_max),
                     settings_.path.c_str());
        std::exit(1);
    }

    Settings settings_;
    Dice dice_;
    std::string path_;
    int fd_ = -1;
    uint64_t step_ = 0;
    std::vector<char> model_;
    std::deque<std::string> history_;
};

[[noreturn]] void usage() {
    std::fprintf(stderr, "usage: kdfs-fsx [-N operations] [-S seed] [-L bytes] PATH\n");
    std::exit(64);
}

uint64_t number(const char* text) {
    char* end = nullptr;
    uint64_t value = std::strtoull(text, &end, 10);
    if (*text == '\0' || *end != '\0') {
        usage();
    }
    return value;
}

}  // namespace

int main(int argc, char** argv) {
    Settings settings;
    for (int option = getopt(argc, argv, "N:S:L:"); option != -1;
         option = getopt(argc, argv, "N:S:L:")) {
        if (option == 'N') {
            settings.operations = number(optarg);
        } else if (option == 'S') {
            settings.seed = number(optarg);
        } else if (option == 'L') {
            settings.length_max = number(optarg);
        } else {
            usage();
        }
    }
    if (optind + 1 != argc || settings.length_max < kPageBytes) {
        usage();
    }
    settings.path = argv[optind];
    Exerciser(settings).run();
    std::printf("kdfs-fsx: %llu operations with seed %llu, no difference\n",
                static_cast<unsigned long long>(settings.operations),
                static_cast<unsigned long long>(settings.seed));
    return 0;
}
