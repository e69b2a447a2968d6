#include "kdfs/proto/wire.h"

#include "kdfs/base/types.h"

namespace kdfs {

Buffer encode(const google::protobuf::MessageLite& message) {
    size_t size = message.ByteSizeLong();
    KDFS_CHECK(size <= kBodyBytesMax);
    Buffer body = Buffer::allocate(size);
    message.SerializeWithCachedSizesToArray(reinterpret_cast<uint8_t*>(body.mutable_data()));
    return body;
}

Status decode_into(google::protobuf::MessageLite& message, const Buffer& body) {
    if (!message.ParseFromArray(body.data(), static_cast<int>(body.size()))) {
        return Error(Errc::kMalformed, "message body is not a valid " + message.GetTypeName());
    }
    return {};
}

}  // namespace kdfs
