// What tells a log of RocksDB that was damaged from one that a power cut left.
//   u8 which: 0 any bytes as a log; 1 a log of whole records, of which one byte is changed;
//   2 any bytes with a mark among them
//   1: u16 the place of the change, u8 what is changed; parts: the records
//   2: u64 the mark's number, a part: what stands before it; rest: what stands behind

#include "kdfs/base/checksum.h"
#include "kdfs/kv/rocks_log_check.h"
#include "tests/fuzz/fuzz_input.h"

#include <algorithm>
#include <map>
#include <string>
#include <vector>

namespace kdfs::fuzz {
namespace {

constexpr size_t kHeaderBytes = 7;
constexpr size_t kRecordsMax = 64;
constexpr char kFull = 1;

// CRC-32C as RocksDB stores it, bit by bit.
uint32_t masked_crc(std::string_view bytes) {
    uint32_t crc = 0xffffffff;
    for (char c : bytes) {
        crc ^= static_cast<uint8_t>(c);
        for (int bit = 0; bit < 8; ++bit) {
            crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78U : 0U);
        }
    }
    crc = ~crc;
    return ((crc >> 15) | (crc << 17)) + 0xa282ead8U;
}

void append_record(std::string& log, std::string_view bytes) {
    std::string typed(1, kFull);
    typed += bytes;
    Writer writer(log);
    writer.u32(masked_crc(typed));
    writer.u16(static_cast<uint16_t>(bytes.size()));
    log += typed;
}

uint64_t readable(std::string_view log) {
    RecordScan scan;
    for (size_t at = 0; at < log.size(); at += RecordScan::kPartBytes) {
        scan.add_part(log.substr(at, RecordScan::kPartBytes));
    }
    require(scan.readable() <= log.size(), "no more can be read than there is");
    return scan.readable();
}

// All of it can be read; with a wrong byte, what is before the record that has it.
void scan_records(Input& input) {
    uint64_t place = input.u16();
    auto change = static_cast<char>(std::max<uint8_t>(input.u8(), 1));
    std::string log;
    std::vector<uint64_t> ends;
    while (!input.empty() && ends.size() < kRecordsMax) {
        std::string_view bytes = input.part();
        if (log.size() + kHeaderBytes + bytes.size() > RecordScan::kPartBytes) {
            break;
        }
        append_record(log, bytes);
        ends.push_back(log.size());
    }
    require(readable(log) == log.size(), "whole records are read");
    if (log.empty()) {
        return;
    }
    place %= log.size();
    log[place] = static_cast<char>(log[place] ^ change);
    auto hit = std::upper_bound(ends.begin(), ends.end(), place);
    uint64_t before = hit == ends.begin() ? 0 : *(hit - 1);
    require(readable(log) == before, "a record with a wrong byte is not read, nor what is behind");
}

void find_mark(Input& input) {
    uint64_t number = input.u64();
    std::string bytes(input.part());
    bytes += durable_mark("identity", "000007.log", number);
    bytes += input.rest();
    std::map<std::string, uint64_t> marks;
    find_marks("identity", bytes, marks);
    require(marks["000007.log"] >= number, "a mark is found wherever it stands");
    marks.clear();
    // An identity that cannot be known when the bytes are made, as in a store.
    find_marks("another " + std::to_string(checksum(bytes)), bytes, marks);
    require(marks.empty(), "another store's marks do not count");
}

}  // namespace
}  // namespace kdfs::fuzz

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace kdfs;
    fuzz::Input input(fuzz::view_of(data, size));
    switch (input.u8() % 3) {
        case 0:
            (void)fuzz::readable(input.rest());
            break;
        case 1:
            fuzz::scan_records(input);
            break;
        default:
            fuzz::find_mark(input);
            break;
    }
    return 0;
}
