#pragma once

#include "kdfs/base/buffer.h"
#include "kdfs/base/result.h"

#include <google/protobuf/message_lite.h>

namespace kdfs {

// Protocol Buffers bodies. decode() fails with kMalformed; the limits of frames bound what it can
// allocate. What the fields mean is checked by whoever uses them.
Buffer encode(const google::protobuf::MessageLite& message);
Status decode_into(google::protobuf::MessageLite& message, const Buffer& body);

template <class Message>
Result<Message> decode(const Buffer& body) {
    Message message;
    KDFS_TRY(decode_into(message, body));
    return message;
}

}  // namespace kdfs
