// How much memory the body of a frame can become when it is decoded.

#include "kdfs/base/types.h"
#include "kdfs/proto/chunk.pb.h"
#include "kdfs/proto/cluster.pb.h"
#include "kdfs/proto/meta.pb.h"
#include "kdfs/proto/wire.h"

#include <google/protobuf/descriptor.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace kdfs {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::MessageFactory;

// Bytes in memory per byte of the body, at most: a body of kBodyBytesMax becomes less than 200 MiB.
constexpr uint64_t kGrowthMax = 96;
constexpr uint64_t kBodyBytes = 64 * KiB;

// The field with `content` in it, as it is sent.
std::string encoded_field(const FieldDescriptor* field, const std::string& content) {
    constexpr int kLengthDelimited = 2;
    int tag = field->number() << 3 | kLengthDelimited;
    std::string out;
    for (; tag >= 0x80; tag >>= 7) {
        out += static_cast<char>(tag | 0x80);
    }
    out += static_cast<char>(tag);
    out += static_cast<char>(content.size());
    return out + content;
}

// The smallest message of the type, and one with every field that is a message present and empty.
std::vector<std::string> contents_of(const Descriptor* type) {
    std::string full;
    for (int i = 0; i < type->field_count(); ++i) {
        if (type->field(i)->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
            full += encoded_field(type->field(i), "");
        }
    }
    return {"", full};
}

uint64_t growth(const Descriptor* type, const std::string& element) {
    std::string body;
    while (body.size() < kBodyBytes) {
        body += element;
    }
    std::unique_ptr<Message> message(
        MessageFactory::generated_factory()->GetPrototype(type)->New());
    EXPECT_TRUE(decode_into(*message, Buffer::copy_of(std::string_view(body))).ok())
        << type->full_name();
    return message->SpaceUsedLong() / body.size();
}

// Lists of small messages are what grows most.
TEST(MessageMemoryTest, NoBodyGrowsBeyondABound) {
    uint64_t worst = 0;
    for (const Descriptor* any : {pb::ClusterMap::descriptor(),
                                  pb::MetaRequest::descriptor(),
                                  pb::WriteRequest::descriptor()}) {
        for (int m = 0; m < any->file()->message_type_count(); ++m) {
            const Descriptor* type = any->file()->message_type(m);
            for (int f = 0; f < type->field_count(); ++f) {
                const FieldDescriptor* field = type->field(f);
                if (!field->is_repeated() ||
                    field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) {
                    continue;
                }
                for (const std::string& content : contents_of(field->message_type())) {
                    uint64_t times = growth(type, encoded_field(field, content));
                    EXPECT_LE(times, kGrowthMax) << field->full_name();
                    worst = std::max(worst, times);
                }
            }
        }
    }
    // The test would prove nothing if it measured nothing.
    EXPECT_GT(worst, 10u);
}

}  // namespace
}  // namespace kdfs
