#pragma once

#include "kdfs/rt/sync.h"
#include "storage/chunk_record.h"

#include <map>
#include <memory>
#include <tuple>
#include <utility>

namespace kdfs::storage {

// The chunks something is happening to, each with its lock. Changes of one chunk of one target run
// one after the other under it; a reader waits only for the change that was pending when it came.
class ChunkSlots {
public:
    struct Slot {
        AsyncMutex mutex;
        bool pending = false;  // a change was or may have been sent on, and is not decided
        Event decided;         // pulsed when `pending` ends
        size_t users = 0;
    };
    using Key = std::pair<TargetId, ChunkKey>;

    // Keeps a slot alive.
    class Ref {
    public:
        Ref() = default;
        Ref(ChunkSlots& slots, Key key) : slots_(&slots), key_(key) {
            auto [place, is_new] = slots.slots_.try_emplace(key);
            slot_ = &place->second;
            slot_->users += 1;
        }
        Ref(Ref&& other) noexcept { *this = std::move(other); }
        Ref& operator=(Ref&& other) noexcept {
            if (this != &other) {
                reset();
                slots_ = std::exchange(other.slots_, nullptr);
                slot_ = std::exchange(other.slot_, nullptr);
                key_ = other.key_;
            }
            return *this;
        }
        ~Ref() { reset(); }
        Slot* operator->() const { return slot_; }
        Slot& operator*() const { return *slot_; }

    private:
        void reset() {
            if (slot_ != nullptr && --slot_->users == 0) {
                slots_->slots_.erase(key_);
            }
            slot_ = nullptr;
        }
        ChunkSlots* slots_ = nullptr;
        Slot* slot_ = nullptr;
        Key key_;
    };

    // Marks a slot pending while it lives; the slot outlives it.
    class Pending {
    public:
        Pending() = default;
        explicit Pending(Slot& slot) : slot_(&slot) { slot.pending = true; }
        Pending(Pending&& other) noexcept : slot_(std::exchange(other.slot_, nullptr)) {}
        Pending& operator=(Pending&& other) noexcept {
            if (this != &other) {
                end();
                slot_ = std::exchange(other.slot_, nullptr);
            }
            return *this;
        }
        ~Pending() { end(); }
        void end() {
            if (slot_ != nullptr) {
                slot_->pending = false;
                std::exchange(slot_, nullptr)->decided.pulse();
            }
        }

    private:
        Slot* slot_ = nullptr;
    };

    bool pending(const Key& key) const {
        auto found = slots_.find(key);
        return found != slots_.end() && found->second.pending;
    }
    size_t size() const { return slots_.size(); }

private:
    std::map<Key, Slot> slots_;
};

}  // namespace kdfs::storage
