# Compiler launcher, linker and warnings. Sanitizers and optimisation come from the preset.

find_program(KDFS_CCACHE ccache)
if(KDFS_CCACHE)
    set(CMAKE_C_COMPILER_LAUNCHER ${KDFS_CCACHE})
    set(CMAKE_CXX_COMPILER_LAUNCHER ${KDFS_CCACHE})
endif()

# The first linker that links with the preset's own flags (sanitizers included) wins.
include(CheckCXXSourceCompiles)
foreach(linker mold lld)
    set(CMAKE_REQUIRED_LINK_OPTIONS -fuse-ld=${linker})
    check_cxx_source_compiles("#include <string>\nint main() { return std::string().size(); }"
                              KDFS_LINKS_WITH_${linker})
    unset(CMAKE_REQUIRED_LINK_OPTIONS)
    if(KDFS_LINKS_WITH_${linker})
        add_link_options(-fuse-ld=${linker})
        break()
    endif()
endforeach()

# Every target of ours links this; generated code does not. The g++ exceptions are false alarms of
# g++ 12: -Wrestrict on std::string, the flow-based ones on coroutine frames and inlined containers
# under the sanitizers.
add_library(kdfs_warnings INTERFACE)
target_compile_options(kdfs_warnings INTERFACE
    -Wall -Wextra -Wshadow -Wconversion -Werror
    $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict;-Wno-maybe-uninitialized;-Wno-dangling-pointer>
    $<$<CXX_COMPILER_ID:GNU>:-Wno-array-bounds;-Wno-stringop-overflow;-Wno-stringop-overread>
    # clang counts sign changes as conversions, g++ does not; ask the same of both.
    $<$<CXX_COMPILER_ID:Clang>:-Wno-sign-conversion>)
