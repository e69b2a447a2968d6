#pragma once

#include <cstdio>
#include <cstdlib>

// Checks for programming errors. They stay on in every build: a broken invariant must not reach a
// disk or a peer. What is read from disk, network or a user is never checked by these; it is
// validated and answered with an Error.
#define KDFS_CHECK(condition)                                                                  \
    do {                                                                                       \
        if (!(condition)) [[unlikely]] {                                                       \
            std::fprintf(stderr, "%s:%d: check failed: %s\n", __FILE__, __LINE__, #condition); \
            std::abort();                                                                      \
        }                                                                                      \
    } while (false)
