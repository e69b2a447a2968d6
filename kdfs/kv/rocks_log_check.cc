#include "kdfs/kv/rocks_log_check.h"

#include "kdfs/base/checksum.h"
#include "kdfs/base/codec.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <utility>
#include <vector>

namespace kdfs {
namespace {

constexpr std::string_view kMagic = "kdfs durable";
constexpr size_t kNameBytesMax = 64;
constexpr size_t kPartsAtOnce = 32;
// RocksDB's logs: blocks of records, each behind u32 checksum, u16 length, u8 type.
constexpr size_t kHeaderBytes = 7;
constexpr uint8_t kFull = 1;
constexpr uint8_t kFirst = 2;
constexpr uint8_t kMiddle = 3;
constexpr uint8_t kLast = 4;
std::array<uint32_t, 256> make_crc_table() {
    constexpr uint32_t kCastagnoli = 0x82f63b78;
    std::array<uint32_t, 256> table{};
    for (uint32_t i = 0; i < table.size(); ++i) {
        uint32_t value = i;
        for (int bit = 0; bit < 8; ++bit) {
            value = (value >> 1) ^ ((value & 1) != 0 ? kCastagnoli : 0);
        }
        table[i] = value;
    }
    return table;
}

// CRC-32C, masked as RocksDB stores it.
uint32_t masked_crc(std::string_view bytes) {
    static const std::array<uint32_t, 256> kTable = make_crc_table();
    constexpr uint32_t kMaskDelta = 0xa282ead8;
    uint32_t crc = 0xffffffff;
    for (char c : bytes) {
        crc = (crc >> 8) ^ kTable[(crc ^ static_cast<uint8_t>(c)) & 0xff];
    }
    crc = ~crc;
    return ((crc >> 15) | (crc << 17)) + kMaskDelta;
}

uint64_t mark_checksum(std::string_view identity, std::string_view mark) {
    return checksum(std::string(identity) + std::string(mark));
}

// Shows `see` the file's bytes, `bytes` at a time; the last may be fewer.
template <class See>
void read_file(const std::filesystem::path& path, size_t bytes, See see) {
    std::ifstream file(path, std::ios::binary);
    std::vector<char> part(bytes);
    while (file.read(part.data(), static_cast<std::streamsize>(part.size())), file.gcount() > 0) {
        see(std::string_view(part.data(), static_cast<size_t>(file.gcount())));
    }
}

// As RocksDB::GetDbIdentity() gives it; empty if there is none.
std::string identity_of(const std::filesystem::path& directory) {
    std::ifstream file(directory / "IDENTITY", std::ios::binary);
    std::string identity;
    std::getline(file, identity);
    return identity;
}

std::map<std::string, uint64_t> marks_of(const std::filesystem::path& directory) {
    std::string identity = identity_of(directory);
    std::map<std::string, uint64_t> marks;
    std::error_code ignored;
    for (const auto& entry : std::filesystem::directory_iterator(directory, ignored)) {
        if (entry.path().extension() == ".log") {
            // A mark that lies across two blocks is split by a header, and not found anyway.
            read_file(entry.path(), kPartsAtOnce * RecordScan::kPartBytes, [&](auto bytes) {
                find_marks(identity, bytes, marks);
            });
        }
    }
    return marks;
}

}  // namespace

std::string durable_mark(std::string_view identity, std::string_view file, uint64_t bytes) {
    std::string mark(kMagic);
    Writer writer(mark);
    writer.bytes(file);
    writer.u64(bytes);
    writer.u64(mark_checksum(identity, mark));
    return mark;
}

void find_marks(std::string_view identity,
                std::string_view bytes,
                std::map<std::string, uint64_t>& marks) {
    for (size_t at = bytes.find(kMagic); at != std::string_view::npos;
         at = bytes.find(kMagic, at + 1)) {
        Reader reader(bytes.substr(at + kMagic.size()));
        std::string_view file = reader.bytes();
        uint64_t durable = reader.u64();
        size_t covered = bytes.size() - at - reader.remaining();
        uint64_t sum = reader.u64();
        if (reader.ok() && file.size() <= kNameBytesMax &&
            sum == mark_checksum(identity, bytes.substr(at, covered))) {
            uint64_t& most = marks[std::string(file)];
            most = std::max(most, durable);
        }
    }
}

void RecordScan::add_part(std::string_view part) {
    size_t at = 0;
    // What is too short for a header at the end of a part is filled up.
    while (whole_ && part.size() - at >= kHeaderBytes) {
        Reader header(part.substr(at));
        uint32_t crc = header.u32();
        size_t length = header.u16();
        uint8_t type = header.u8();
        constexpr size_t kTypeAt = kHeaderBytes - 1;
        whole_ = header.remaining() >= length &&
                 masked_crc(part.substr(at + kTypeAt, 1 + length)) == crc && fits(type);
        if (whole_) {
            at += kHeaderBytes + length;
            readable_ = before_ + at;
        }
    }
    before_ += part.size();
}

bool RecordScan::fits(uint8_t type) {
    bool begins = type == kFull || type == kFirst;
    bool goes_on = type == kMiddle || type == kLast;
    if (begins == inside_ || begins == goes_on) {
        return false;
    }
    inside_ = type == kFirst || type == kMiddle;
    return true;
}

Status check_logs(const std::string& directory) {
    for (const auto& [name, durable] : marks_of(directory)) {
        std::filesystem::path path = std::filesystem::path(directory) / name;
        std::error_code ignored;
        if (name.find('/') != std::string::npos || !std::filesystem::exists(path, ignored)) {
            continue;  // No longer needed.
        }
        RecordScan scan;
        read_file(path, RecordScan::kPartBytes, [&](auto part) { scan.add_part(part); });
        if (scan.readable() < durable) {
            std::string detail = "key-value store " + directory + ": its file ";
            detail += name + " is damaged: its first " + std::to_string(durable);
            detail += " bytes were on stable storage, what is behind byte ";
            detail += std::to_string(scan.readable());
            detail += " cannot be read; restore the directory from a good copy";
            return Error(Errc::kCorrupt, std::move(detail));
        }
    }
    return {};
}

}  // namespace kdfs
