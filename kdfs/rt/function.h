#pragma once

#include "kdfs/base/check.h"

#include <cstddef>
#include <new>
#include <type_traits>
#include <utility>

namespace kdfs {

template <class Signature>
class Function;

// A move-only callable (std::move_only_function is C++23). Small callables are stored in place.
template <class R, class... Args>
class Function<R(Args...)> {
public:
    Function() = default;
    template <class F>
    requires(!std::is_same_v<std::decay_t<F>, Function> && std::is_invocable_r_v<R, F&, Args...>)
        // NOLINTNEXTLINE(google-explicit-constructor): a lambda goes where a Function is taken.
        Function(F&& callable) {
        using Callable = std::decay_t<F>;
        if constexpr (kFits<Callable>) {
            new (storage_) Callable(std::forward<F>(callable));
            operations_ = &kInPlace<Callable>;
        } else {
            *reinterpret_cast<Callable**>(storage_) = new Callable(std::forward<F>(callable));
            operations_ = &kOnHeap<Callable>;
        }
    }
    Function(Function&& other) noexcept { take(other); }
    Function& operator=(Function&& other) noexcept {
        if (this != &other) {
            reset();
            take(other);
        }
        return *this;
    }
    Function(const Function&) = delete;
    Function& operator=(const Function&) = delete;
    ~Function() { reset(); }

    explicit operator bool() const { return operations_ != nullptr; }
    R operator()(Args... args) {
        KDFS_CHECK(operations_ != nullptr);
        return operations_->call(storage_, std::forward<Args>(args)...);
    }

private:
    static constexpr size_t kBytes = 48;
    struct Operations {
        R (*call)(void*, Args&&...);
        void (*move)(void* from, void* to);
        void (*destroy)(void*);
    };
    template <class C>
    static constexpr bool kFits =
        sizeof(C) <= kBytes &&
        alignof(C) <= alignof(std::max_align_t) && std::is_nothrow_move_constructible_v<C>;
    template <class C>
    static constexpr Operations kInPlace = {
        [](void* at, Args&&... args) -> R {
            return (*static_cast<C*>(at))(std::forward<Args>(args)...);
        },
        [](void* from, void* to) {
            new (to) C(std::move(*static_cast<C*>(from)));
            static_cast<C*>(from)->~C();
        },
        [](void* at) { static_cast<C*>(at)->~C(); }};
    template <class C>
    static constexpr Operations kOnHeap = {
        [](void* at, Args&&... args) -> R {
            return (**static_cast<C**>(at))(std::forward<Args>(args)...);
        },
        [](void* from, void* to) { *static_cast<C**>(to) = *static_cast<C**>(from); },
        [](void* at) { delete *static_cast<C**>(at); }};

    void reset() {
        if (operations_ != nullptr) {
            operations_->destroy(storage_);
            operations_ = nullptr;
        }
    }
    void take(Function& other) {
        operations_ = other.operations_;
        if (operations_ != nullptr) {
            operations_->move(other.storage_, storage_);
            other.operations_ = nullptr;
        }
    }

    const Operations* operations_ = nullptr;
    alignas(std::max_align_t) std::byte storage_[kBytes];
};

}  // namespace kdfs
