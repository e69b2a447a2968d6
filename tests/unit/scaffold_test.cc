#include <gtest/gtest.h>

TEST(ScaffoldTest, TestsAreBuiltAsCxx20) { EXPECT_EQ(__cplusplus, 202002L); }
